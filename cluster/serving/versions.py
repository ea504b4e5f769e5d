"""May a version take traffic? It may if every model of it is what was registered and answers the example.

Each model is read, compared with its digest, loaded, and asked the example inputs that were recorded at registration.
What is the same as in a version that passed is not tried again. It must not know aliases or requests.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from umbel.cluster.serving.attempts import Attempts
from umbel.cluster.serving.errors import RefusedError
from umbel.cluster.serving.models import Loaded
from umbel.cluster.serving.recorded_code import RecordedCode
from umbel.cluster.serving.schema import InputSchema
from umbel.scheduler.errors import StoreUnavailableError, UmbelError
from umbel.storage.registry.groups import find_group
from umbel.storage.registry.model_rows import GROUP
from umbel.storage.registry.model_version import ModelVersion
from umbel.storage.registry.predicting import as_taken, plain, predict
from umbel.storage.values.packs import MODEL

__all__ = ["Admission", "ServedVersion", "one_line"]

_T = TypeVar("_T")
#: How many groups are named that don't pass.
_NAMED = 5
#: In which the models of one version are tried.
_THREADS = 4


@dataclass(frozen=True, eq=False)
class ServedVersion:
    """A version that passed."""

    version: ModelVersion
    #: The digest of each group's model, by canonical text.
    digests: dict[str, str]
    inputs: InputSchema
    trust: bool
    #: Imports what models need and is not here; None: nothing does.
    code: RecordedCode | None = None
    _places: dict[str, int] = field(default_factory=dict)
    _names: list[str] = field(default_factory=list)

    @staticmethod
    def of(version: ModelVersion, trust: bool, code: RecordedCode | None = None) -> ServedVersion:
        """Read the version's table.

        Raises:
            StoreError: it can't be read, or its code can't be imported beside that of others.
        """
        if code is not None:
            code.check(version)
        table = version.table()
        names = table[GROUP].to_pylist()
        digests = dict(zip(names, table[MODEL].to_pylist(), strict=True))
        schema = InputSchema((version.schema or {}).get("inputs"))
        places = {name: at for at, name in enumerate(names)}
        return ServedVersion(version, digests, schema, trust, code, places, names)

    @property
    def number(self) -> int:
        """Which version."""
        return self.version.number

    def find(self, group: object) -> str:
        """The canonical text of a group, which may be given by its only value, or by its values by key.

        Raises:
            NotFoundError: there is none; near names are given.
        """
        if isinstance(group, str) and group in self.digests:
            return group
        what = f"version {self.number} of {self.version.model!r}"
        lists_them = f"GET /v1/models/{self.version.model}/groups lists them"
        return self._names[find_group(group, self.version.by, self._places, what, lists_them)]

    def load(self, group: str) -> Loaded:
        """Load the model of a group; checks its digest.

        Raises:
            StoreError: it can't be read, or is not what was registered.
            UntrustedError: it carries code, and the store is not trusted.
        """
        model = self.version.load(group, self.trust) if self.code is None else self.code.load(self.version, group)
        return Loaded.of(model, self.digests[group], group, self.version.takes)


class Admission:
    """Lets versions in. Safe to use from several threads, each for a version of its own.

    Args:
        trust: load models whatever they hold; see `umbel.storage.registry.trust`.
        limit_s: a version of which no model has answered for so long is refused.
        code: imports what models need and is not here; None: nothing does.
    """

    def __init__(self, trust: bool, limit_s: float, code: RecordedCode | None = None) -> None:
        self._trust = trust
        self._code = code
        self._limit_s = limit_s
        #: What has passed: digests with the digest of the example that they answered.
        self._passed: set[tuple[str, str | None]] = set()
        self._closed = threading.Event()
        #: By version: what has not ended in time, and may hang for ever.
        self._stuck: dict[int, Attempts[Any]] = {}

    def close(self) -> None:
        """Try nothing more."""
        self._closed.set()

    def admit(
        self, version: ModelVersion, warm: Collection[str], held: Collection[str] = ()
    ) -> tuple[ServedVersion, list[Loaded]]:
        """Try all models of a version.

        Args:
            version: the version.
            warm: groups whose models are given back, so that the first requests find them.
            held: digests of models that are in memory already.

        Returns:
            The version, and models of groups in ``warm`` that were not held, in their order.

        Raises:
            RefusedError: it does not pass, or hangs; says which groups, and why.
            StoreUnavailableError: the store does not answer; that says nothing about the version.

        Cost: each model that has not passed yet is read and loaded once.
        """
        try:
            admitted = self._admit(version, warm, held)
        except BaseException:
            if self._code is not None:
                self._code.forget(version)
            raise
        if self._code is not None:
            self._code.keep(version)
        return admitted

    def _admit(
        self, version: ModelVersion, warm: Collection[str], held: Collection[str]
    ) -> tuple[ServedVersion, list[Loaded]]:
        number = version.number
        stuck = self._stuck.get(number)
        if stuck is not None and stuck.are_stuck:  # more threads would only hang beside these
            raise RefusedError(f"version {number} is not served: it has not answered since it was tried before")
        read = next((read for _, read in self._tried(number, [partial(self._read, version)])), None)
        if isinstance(read, StoreUnavailableError):
            raise read
        if read is None or isinstance(read, Exception):
            why = self._not_in_time if read is None else one_line(read)
            raise RefusedError(f"version {number} can't be read", got=why) from read
        served, example = read
        smoke = version.record.get("smoke")
        new = [group for group, digest in served.digests.items() if (digest, smoke) not in self._passed]
        cold = [group for group in dict.fromkeys(warm) if group in served.digests and served.digests[group] not in held]
        groups = list(dict.fromkeys([*cold, *new]))
        failed = dict.fromkeys(groups, self._not_in_time)
        kept: dict[str, Loaded] = {}
        for place, outcome in self._tried(number, [partial(_attempt, served, group, example) for group in groups]):
            if isinstance(outcome, StoreUnavailableError):
                raise outcome
            if isinstance(outcome, Exception):
                failed[groups[place]] = one_line(outcome)
                continue
            del failed[groups[place]]
            self._passed.add((outcome.digest, smoke))
            if place < len(cold):
                kept[outcome.group] = outcome
        if failed:
            raise _refused(served, failed)
        return served, [kept[group] for group in cold]

    @property
    def _not_in_time(self) -> str:
        return f"no answer within {self._limit_s:g} s"

    def _read(self, version: ModelVersion) -> tuple[ServedVersion, object]:
        return ServedVersion.of(version, self._trust, self._code), version.smoke

    def _tried(self, number: int, jobs: Sequence[Callable[[], _T]]) -> Iterator[tuple[int, _T | Exception]]:
        attempts: Attempts[_T] = Attempts(_THREADS, self._limit_s, self._closed)
        self._stuck[number] = attempts
        return attempts.run(jobs)


def _attempt(served: ServedVersion, group: str, example: object) -> Loaded:
    """Load and ask a group's model."""
    loaded = served.load(group)
    if example is not None:
        plain(predict(loaded.model, as_taken(example, loaded.takes)))
    return loaded


def one_line(error: BaseException) -> str:
    """An error in one line, for records and logs."""
    parts = [error.what, error.got] if isinstance(error, UmbelError) else [f"{type(error).__name__}: {error}"]
    return "; ".join(part for part in parts if part)[:300]


def _refused(served: ServedVersion, failed: dict[str, str]) -> RefusedError:
    named = "; ".join(f"{group}: {why}" for group, why in list(failed.items())[:_NAMED])
    more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    return RefusedError(
        f"version {served.number} is not served: {len(failed)} of its {len(served.digests)} models can't be",
        got=named + more,
        expected="models that are what was registered, and answer the example",
        hint="roll the alias back, or restore the artifacts from a copy",
    )
