"""Is what a model is asked, and what it answers, still what it was trained on? `umbel.profile`, `umbel.drift`.

A profile describes the fields of the training data in figures; drift is a distance of what was served from it. It is a
watch and no test: with hundreds of fields and looks some alarm will be false, so its bars are set by size (PSI, and the
Kolmogorov–Smirnov distance), and chance only has to be no explanation. It must not know how the log is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umbel.runtime.production.served import registered_model
from umbel.scheduler.errors import NotFoundError, UsageError
from umbel.scheduler.statistics.distributions import Distance, Numbers, distance_of_categories, distance_of_numbers
from umbel.scheduler.words import counted
from umbel.storage.registry.input_fields import as_category, as_number, describe, fields_of_rows, fields_of_table
from umbel.storage.registry.profiles import Description, Descriptions, create_profile, read_profile

if TYPE_CHECKING:
    from umbel.storage.registry.model_version import ModelVersion
    from umbel.storage.registry.registered_model import RegisteredModel
    from umbel.storage.store import Store

__all__ = ["Drift", "FieldDrift", "Profile", "drift", "profile"]

#: Rows of the log that are looked at, evenly spaced.
_MAX_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Profile:
    """Training data in figures. Make one with `umbel.profile`."""

    descriptions: Descriptions

    def save(self, model: str, version: int | str = "latest", *, store: Store | str | None = None) -> int:
        """Keep it as that of a version, whose number is returned. A version has one profile, which never changes.

        Args:
            model: the name of a registered model.
            version: its number, an alias, or "latest".
            store: where it is registered; None: ``$UMBEL_STORE``, else ``./umbel-store``.

        Raises:
            NotFoundError: there is no such model or version.
            StoreConflictError: the version has another profile.
        """
        found = registered_model(model, store)
        number = found.version(version).number
        create_profile(found.objects, model, number, self.descriptions)
        return number

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return self.descriptions.as_dict()


def profile(table: object, *, outputs: object = None) -> Profile:
    """Describe training data: of numbers the hundredths, range, mean and share missing; of categories their counts.

    Args:
        table: the inputs, a column a field: a table (Arrow, pandas, Polars, a dict of columns, a list of dicts), or an
            array with a row an input.
        outputs: what the model answers, or shall answer: values, or the name of a column of the table, which is then
            none of the inputs.

    Raises:
        UsageError: it is no table, or has no such column.
    """
    rows, fields = fields_of_table(table)
    answers: Any = outputs
    if isinstance(outputs, str):
        if outputs not in fields:
            raise UsageError("the table has no such column", got=outputs, expected="one of " + ", ".join(fields))
        answers = fields.pop(outputs)
    elif outputs is not None:
        answers = np.asarray(outputs).ravel()
        answers = answers.astype(np.float64) if answers.dtype.kind in "iuf" else answers.tolist()
    described = {name: describe(values) for name, values in fields.items()}
    return Profile(Descriptions(rows, described, None if answers is None else describe(answers)))


@dataclass(frozen=True, slots=True)
class FieldDrift:
    """One field."""

    field: str
    #: "inputs" or "outputs".
    of: str
    verdict: Literal["drift", "ok", "too few", "new", "gone"]
    #: Values that were served, and the shares that were missing, then and now.
    count: int
    missing_before: float | None
    missing: float
    psi: float | None = None
    #: The bar that the PSI was held to.
    psi_limit: float | None = None
    ks: float | None = None
    ks_p_value: float | None = None


@dataclass(frozen=True, slots=True)
class Drift:
    """What was served against what a version was trained on: what `umbel.drift` gives."""

    model: str
    version: int
    rows: int
    #: Rows whose inputs the log holds.
    with_inputs: int
    fields: tuple[FieldDrift, ...]
    #: The version whose profile it was compared with; None: with something else.
    profile_of: int | None = None

    @property
    def drifted(self) -> bool:
        """Whether any field has drifted, or is gone."""
        return any(field.verdict in ("drift", "gone") for field in self.fields)

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "drifted": self.drifted}

    def text(self) -> str:
        """For people: a line a field, those that drifted first."""
        answers = f"{counted(self.rows, 'answer')}, {self.with_inputs:,} with their inputs"
        lines = [f"{self.model}, version {self.version}: {answers}"]
        if self.profile_of not in (None, self.version):
            lines.append(f"  put together by a promotion; against the training data of version {self.profile_of}")
        order = {"drift": 0, "gone": 0, "new": 1, "too few": 2, "ok": 3}
        for field in sorted(self.fields, key=lambda each: (order[each.verdict], -(each.psi or 0.0), each.field)):
            figures = [counted(field.count, "value")]
            if field.psi is not None:
                figures.append(f"PSI {field.psi:.3f} (limit {field.psi_limit:.3f})")
            if field.ks is not None:
                figures.append(f"KS {field.ks:.3f} (p {field.ks_p_value:.2g})")
            if field.missing or field.missing_before:
                figures.append(f"missing {field.missing_before or 0:.1%} → {field.missing:.1%}")
            lines.append(f"  {field.verdict:<8} {field.of} {field.field}: {', '.join(figures)}")
        if not self.with_inputs and self.rows:
            lines.append("  the log holds no inputs, so only outputs are compared")
        drifted = sum(field.verdict in ("drift", "gone") for field in self.fields)
        judged = sum(field.verdict in ("drift", "ok", "gone") for field in self.fields)
        fields = counted(judged, "field")
        verdict = f"drift in {drifted} of {fields}" if drifted else f"no drift in {fields}"
        return "\n".join([*lines, verdict if judged else "not enough was served to tell"])


def drift(
    model: str,
    *,
    store: Store | str | None = None,
    version: int | str = "champion",
    against: Profile | object = None,
    since: datetime | None = None,
    psi: float = 0.2,
    ks: float = 0.1,
    alpha: float = 0.01,
    least: int = 100,
) -> Drift:
    """Compare what a version was asked, and what it answered, with the profile of its training data.

    A field has drifted if its PSI is at least ``psi`` and more than chance makes of so few values once in a thousand
    times, or its Kolmogorov–Smirnov distance is at least ``ks`` and as unlikely as ``alpha`` divided by the number of
    fields; or if it is gone.

    Args:
        model: the name of a registered model.
        store: where it is registered and logged; None: ``$UMBEL_STORE``, else ``./umbel-store``.
        version: a version's number, or an alias.
        against: a `Profile`, or a table to make one of; None: the one that was saved for the version; of a version that
            a promotion put together, that of the version promoted, else of the one before.
        since: leave out what was answered before.
        psi: the bar of the population stability index, above 0.
        ks: the bar of the Kolmogorov–Smirnov distance, above 0, at most 1.
        alpha: the chance of a false alarm by it, of one look.
        least: fields with fewer values are not judged.

    Raises:
        NotFoundError: there is no such model or version, or it has no profile.
        StoreError: the store can't be read.

    Cost: all objects of the log since then are read; of more than 100,000 rows as many are looked at, evenly spaced.
    """
    from umbel.storage.predictions.reader import read_predictions

    if not (psi > 0 and 0 < ks <= 1 and 0 < alpha < 1 and least >= 1):
        raise UsageError(
            "these bars can't be used",
            got=f"psi={psi}, ks={ks}, alpha={alpha}, least={least}",
            expected="psi above 0, ks above 0 and at most 1, alpha between 0 and 1, least 1 or more",
        )
    found = registered_model(model, store)
    chosen = found.version(version)
    number = chosen.number
    before, profile_of = _profile_of(found, chosen, against)
    rows = read_predictions(found.objects, model, since)
    rows = rows.filter(pc.equal(rows["version"], number))
    total = rows.num_rows
    if total > _MAX_ROWS:
        rows = rows.take(pa.array(np.linspace(0, total - 1, _MAX_ROWS).astype(np.int64)))
    inputs = [text for text in rows["inputs"].to_pylist() if text is not None]
    served = fields_of_rows(inputs)
    bars = _Bars(psi, ks, alpha / max(1, len(before.inputs) + (before.outputs is not None)), least)
    fields = []
    if inputs:
        for name, description in before.inputs.items():
            fields.append(_judge(name, "inputs", description, served.get(name), bars))
        for name in served.keys() - before.inputs.keys():
            values = served[name]
            missing = sum(value is None for value in values)
            fields.append(FieldDrift(name, "inputs", "new", len(values) - missing, None, missing / len(values)))
    if before.outputs is not None:
        answers = [value for each in _outputs(rows) for value in each]
        fields.append(_judge("outputs", "outputs", before.outputs, answers, bars))
    fields.sort(key=lambda each: (each.of, each.field))
    return Drift(model, number, total, len(inputs), tuple(fields), profile_of)


@dataclass(frozen=True, slots=True)
class _Bars:
    psi: float
    ks: float
    alpha: float
    least: int


def _profile_of(model: RegisteredModel, version: ModelVersion, against: Any) -> tuple[Descriptions, int | None]:
    """What to compare with, and which version's training data that is."""
    if isinstance(against, Profile):
        return against.descriptions, None
    if against is not None:
        return profile(against).descriptions, None
    waiting = [version]
    while waiting:
        each = waiting.pop()
        found = read_profile(model.objects, model.name, each.number)
        if found is not None:
            return found, each.number
        # the last one is the version that was promoted, whose example and schema it has, too
        waiting += [model.version(number) for number in each.version_record.composed_of]
    raise NotFoundError(
        f"version {version.number} of {model.name!r} has no profile of its training data",
        hint=f"umbel.profile(table).save({model.name!r}, {version.number}), or "
        f"umbel drift {model.name} --against FILE.parquet",
    )


def _outputs(rows: pa.Table) -> Iterable[list[Any]]:
    """The values of each answer."""
    for text in rows["output"].to_pylist():
        if text is None:
            yield [None]
        else:
            yield from fields_of_rows([text]).values()


def _judge(name: str, of: str, before: Description, values: list[Any] | None, bars: _Bars) -> FieldDrift:
    if values is None:
        return FieldDrift(name, of, "gone", 0, before.missing, 1.0)
    distance: Distance
    if isinstance(before, Numbers):
        numbers = np.asarray([as_number(value) for value in values])
        missing = int(np.isnan(numbers).sum())
        distance = distance_of_numbers(before, numbers)
    else:
        missing = sum(value is None for value in values)
        distance = distance_of_categories(before, map(as_category, values))
    limit = max(bars.psi, distance.psi_noise)
    verdict: Literal["drift", "ok", "too few"] = "ok"
    if len(values) < bars.least:
        verdict = "too few"
    elif distance.psi >= limit or (
        distance.ks is not None
        and distance.ks_p_value is not None
        and distance.ks >= bars.ks
        and distance.ks_p_value < bars.alpha
    ):
        verdict = "drift"
    return FieldDrift(
        name,
        of,
        verdict,
        len(values) - missing,
        before.missing,
        missing / len(values) if values else 1.0,
        distance.psi,
        limit,
        distance.ks,
        distance.ks_p_value,
    )
