"""May a version take traffic? It may if every model of it is what was registered and answers the example.

Each model is read, compared with its digest, loaded, and asked the example inputs that were recorded at registration.
What is the same as in a version that passed is not tried again. It must not know aliases or requests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

from umbel.cluster.serving.errors import RefusedError
from umbel.cluster.serving.models import Loaded
from umbel.cluster.serving.schema import InputSchema
from umbel.scheduler.errors import StoreUnavailableError, UmbelError
from umbel.storage.registry.groups import find_group
from umbel.storage.registry.model_rows import GROUP
from umbel.storage.registry.model_version import ModelVersion
from umbel.storage.registry.predicting import as_taken, plain, predict
from umbel.storage.values.packs import MODEL

__all__ = ["Admission", "ServedVersion", "one_line"]

#: How many groups are named that don't pass.
_NAMED = 5


@dataclass(frozen=True, eq=False)
class ServedVersion:
    """A version that passed."""

    version: ModelVersion
    #: The digest of each group's model, by canonical text.
    digests: dict[str, str]
    inputs: InputSchema
    trust: bool
    _places: dict[str, int] = field(default_factory=dict)
    _names: list[str] = field(default_factory=list)

    @staticmethod
    def of(version: ModelVersion, trust: bool) -> ServedVersion:
        """Read the version's table.

        Raises:
            StoreError: it can't be read.
        """
        table = version.table()
        names = table[GROUP].to_pylist()
        digests = dict(zip(names, table[MODEL].to_pylist(), strict=True))
        schema = InputSchema((version.schema or {}).get("inputs"))
        return ServedVersion(version, digests, schema, trust, {name: at for at, name in enumerate(names)}, names)

    @property
    def number(self) -> int:
        """Which version."""
        return self.version.number

    def find(self, group: str) -> str:
        """The canonical text of a group, which may be given by its only value.

        Raises:
            NotFoundError: there is none; near names are given.
        """
        if group in self.digests:
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
        model = self.version.load(group, self.trust)
        return Loaded.of(model, self.digests[group], group, self.version.takes)


class Admission:
    """Lets versions in. Used from one thread.

    Args:
        trust: load models whatever they hold; see `umbel.storage.registry.trust`.
        threads: in which models are tried.
    """

    def __init__(self, trust: bool, threads: Executor) -> None:
        self._trust = trust
        self._threads = threads
        #: What has passed: digests with the digest of the example that they answered.
        self._passed: set[tuple[str, str | None]] = set()

    def admit(
        self, version: ModelVersion, warm: Collection[str], held: Callable[[str], bool] = lambda digest: False
    ) -> tuple[ServedVersion, list[Loaded]]:
        """Try all models of a version.

        Args:
            version: the version.
            warm: groups whose models are given back, so that the first requests find them.
            held: whether a model of this digest is in memory already.

        Returns:
            The version, and models of groups in ``warm`` that were not held.

        Raises:
            RefusedError: it does not pass; says which groups, and why.
            StoreUnavailableError: the store does not answer; that says nothing about the version.

        Cost: each model that has not passed yet is read and loaded once.
        """
        try:
            served = ServedVersion.of(version, self._trust)
            example = version.smoke
        except StoreUnavailableError:
            raise
        except UmbelError as error:
            raise RefusedError(f"version {version.number} can't be read", got=one_line(error)) from error
        smoke = version.record.get("smoke")
        new = [group for group, digest in served.digests.items() if (digest, smoke) not in self._passed]
        cold = [group for group in warm if group in served.digests and not held(served.digests[group])]
        attempts = list(dict.fromkeys([*new, *cold]))
        kept: list[Loaded] = []
        failed: dict[str, str] = {}
        for group, outcome in self._try(served, attempts, example):
            if isinstance(outcome, Loaded):
                self._passed.add((outcome.digest, smoke))
                if group in cold:
                    kept.append(outcome)
            else:
                failed[group] = outcome
        if failed:
            raise _refused(served, failed)
        return served, kept

    def _try(self, served: ServedVersion, groups: Iterable[str], example: object) -> Iterator[tuple[str, Loaded | str]]:
        yield from self._threads.map(partial(_attempt, served, example=example), groups)


def _attempt(served: ServedVersion, group: str, example: object) -> tuple[str, Loaded | str]:
    """Load and ask a group's model: the model, or what is wrong with it."""
    try:
        loaded = served.load(group)
        if example is not None:
            plain(predict(loaded.model, as_taken(example, loaded.takes)))
    except StoreUnavailableError:
        raise
    except Exception as error:  # the user's code may raise anything
        return group, one_line(error)
    return group, loaded


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
