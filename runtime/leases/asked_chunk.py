"""Trials of one group whose configs a sampler suggests one by one, each building upon those before.

Takes the place of `TrialChunk` where a sweep has an adaptive search: the same columns for rows, but configs come into
being as the trials run. It must not know how trials are run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from umbel.runtime.driver.programs import StudyInputs, SweepProgram
from umbel.runtime.leases.values import value_digest
from umbel.scheduler.identity import TrialKeys, group_key
from umbel.scheduler.search.adaptive import GroupStudy, KnownTrial, study_seed
from umbel.scheduler.search.space import column_name
from umbel.scheduler.search.transfer import Borrower, lent_score
from umbel.storage.values.columns import booleans, coded, floats, integers

__all__ = ["AskFailed", "AskedChunk"]


@dataclass(frozen=True, slots=True)
class AskFailed:
    """Stands for the config of a trial for which the search had none."""

    error: Exception


class AskedChunk:
    """Consecutive trials of one group: their seeds, and their configs as far as they have been asked for."""

    def __init__(
        self,
        program: SweepProgram,
        keys: Mapping[str, object],
        group: int,
        start: int,
        stop: int,
        data: str | None,
        inputs: StudyInputs | None,
    ) -> None:
        assert program.search is not None
        self._search = program.search
        self._start, self._stop = start, stop
        self._inputs = inputs
        self._study: GroupStudy | None = None
        self._borrower: Borrower | None = None
        first_of_group = group * program.source.trials
        self.group = group
        self.group_keys = keys
        self.first = first_of_group + start
        self.stop = first_of_group + stop
        self.data = data
        self._key_of = TrialKeys(program.code, data, value_digest)
        self.seeds: list[int] = program.source.batch(group_key(keys), start, stop).seeds.tolist()
        # One a trial that was asked for; `configs` is kept flat, by column.
        self.keys: list[str | None] = []
        self.params: list[str | None] = []
        self.distributions: list[str | None] = []
        #: Whether a trial was suggested by a sampler that did not know what came of all before it.
        self.out_of_order: list[bool] = []
        self._in_order = True
        self.borrowed_from: list[str | None] = []
        self._columns: list[dict[str, object]] = []

    def trials(self) -> Iterator[tuple[object, int]]:
        """The trials' configs (or `AskFailed`) and seeds, each asked for when it is wanted."""
        for number, seed in zip(range(self._start, self._stop), self.seeds, strict=True):
            try:
                config, key, params, distributions, origin = self._ask(number, seed)
            except Exception as error:
                self._add(None, None, None, None, {})
                yield AskFailed(error), seed
                continue
            self._add(key, params, distributions, origin, _flat(config, self.group_keys))
            yield config, seed

    def _ask(self, number: int, seed: int) -> tuple[dict[str, object], str, str, str, str | None]:
        if self._study is None:
            self._study = self._take_up()
        lent = None if self._borrower is None else self._borrower.next()
        params, distributions = self._study.ask(number, None if lent is None else lent.params)
        try:
            config = self._search.config(params, self.group_keys)
            key = self._key_of(config, seed)
        except Exception:
            self._study.tell(number, None)
            raise
        return config, key, json.dumps(params), distributions, None if lent is None else lent.origin

    def _add(
        self,
        key: str | None,
        params: str | None,
        distributions: str | None,
        borrowed_from: str | None,
        columns: dict[str, object],
    ) -> None:
        # The columns first: another thread makes rows of as many trials as there are outcomes, which come later.
        self._columns.append(columns)
        self.out_of_order.append(not self._in_order)
        self.keys.append(key)
        self.params.append(params)
        self.distributions.append(distributions)
        self.borrowed_from.append(borrowed_from)

    def leave_out(self) -> None:
        """Take all trials as not asked for: of those that nobody ran, nothing is known but their numbers."""
        for _ in range(self._start, self._stop):
            self._add(None, None, None, None, {})

    def _take_up(self) -> GroupStudy:
        """The group's study, with what is known of its trials."""
        name = group_key(self.group_keys)
        known = self._inputs.known if self._inputs is not None else ()
        alone = self._inputs is None or self._inputs.in_order
        ended = [trial for trial in known if not trial.running]
        self._borrower = self._make_borrower(
            [trial for trial in ended if not alone or trial.number < self._start], alone
        )
        if alone:
            study = self._search.study(name, self.group_keys)
            if study.take_up(self._start, ended):
                self._in_order = {trial.number for trial in ended}.issuperset(range(self._start))
                return study
        self._in_order = False
        # Others work on this study too, or it was begun with another version: what they did is put in as it is.
        study = self._search.study(name, self.group_keys, salt=self._start)
        own = range(self._start, self._stop)  # if one of these runs elsewhere, it is run again here
        study.put([t for t in known if t.params is not None and not (t.running and t.number in own)])
        return study

    def under_way(self, ended: int) -> tuple[int, str] | None:
        """The trial in hand, by its index in the sweep, and its params, once it has them.

        Args:
            ended: how many have ended.
        """
        params = self.params[ended] if ended < len(self.params) else None
        return None if params is None else (self.first + ended, params)

    def tell(self, trial: int, values: Sequence[float] | None, pruned_at: int | None = None) -> None:
        """What came of a trial, by its index in the sweep; None: it failed. See `GroupStudy.tell`."""
        number = trial - self.first + self._start
        params = self.params[trial - self.first]
        if self._study is None or params is None:
            return
        self._study.tell(number, values, pruned_at)
        if self._borrower is not None:
            guided = self.borrowed_from[trial - self.first] is not None
            self._borrower.saw(json.loads(params), self._score(values, pruned_at), guided=guided)

    def _make_borrower(self, known: Sequence[KnownTrial], alone: bool) -> Borrower | None:
        """What chooses configs beside the sampler, having seen what is known; None: nothing does.

        Where others work on the study too it draws otherwise than theirs.
        """
        if self._inputs is None or self._inputs.portfolio is None:
            return None
        key = group_key(self.group_keys) if alone else f"{group_key(self.group_keys)} {self._start}"
        seed = study_seed(self._search.source.seed, self._search.source.sweep, key)
        borrower = Borrower(self._inputs.portfolio, seed, draws=self._search.define is None)
        for trial in known:
            if trial.params is not None:
                score = self._score(trial.values, trial.pruned_at)
                borrower.saw(trial.params, score, guided=trial.borrowed_from is not None)
        return borrower

    def _score(self, values: Sequence[float] | None, pruned_at: int | None) -> float:
        return lent_score(values, pruned_at, self._search.directions[0])

    def leave_open(self) -> None:
        """What came of a trial will be known only when it has been tried again: the next ones don't know of it."""
        self._in_order = False

    # ---- columns -------------------------------------------------------------------------------------------

    @property
    def config_names(self) -> tuple[str, ...]:
        """The columns of the configs that have been asked for."""
        return tuple(dict.fromkeys(name for columns in list(self._columns) for name in columns))

    def config_values(self, name: str, offset: int, count: int) -> list[object]:
        """The values of one column for some of the trials; None where a trial has none."""
        return [columns.get(name) for columns in self._columns[offset : offset + count]]


def asked_column(values: Sequence[object]) -> pa.Array:
    """Values of one column of configs, some of which may be missing: numbers and truth values as such, else text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool}:
        return booleans(values)  # type: ignore[arg-type]
    if kinds <= {int}:
        return integers(values)  # type: ignore[arg-type]
    if kinds <= {int, float}:
        return floats(values)  # type: ignore[arg-type]
    return coded([value if value is None or isinstance(value, str) else _text(value) for value in values])


def _text(value: object) -> str:
    from umbel.scheduler.identity import canonical_json

    return canonical_json(value, value_digest)


def _flat(config: Mapping[str, Any], group: Mapping[str, object]) -> dict[str, object]:
    """A config by columns: nested dicts joined, without the group's keys."""
    found: dict[str, object] = {}
    front: list[tuple[tuple[str, ...], Mapping[str, Any]]] = [((), config)]
    while front:
        path, branch = front.pop()
        for key, value in branch.items():
            if not path and key in group:
                continue
            if isinstance(value, Mapping) and value and all(isinstance(name, str) for name in value):
                front.append(((*path, key), value))
            else:
                found[column_name((*path, key))] = value
    return found
