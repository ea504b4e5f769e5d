"""Which version does each alias stand for now, and how does a replica notice that one has moved?

A thread looks at the aliases every second or so. A version that an alias points to anew is tried first
(`umbel.cluster.serving.versions`), in threads; then it is published at once, as a new snapshot, so a request sees one
state from its beginning to its end. What can't be served keeps out: the alias goes on with what it had. It must not
know requests.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from umbel.cluster.serving.errors import RefusedError
from umbel.cluster.serving.models import Loaded
from umbel.cluster.serving.settings import ServeSettings
from umbel.cluster.serving.versions import Admission, ServedVersion, one_line
from umbel.scheduler.errors import NotFoundError, StoreUnavailableError, UmbelError
from umbel.storage.registry.model_version import ModelVersion
from umbel.storage.registry.records import AliasRecord
from umbel.storage.registry.registry import RegisteredModel

__all__ = ["AliasWatcher", "Problem", "Served", "Snapshot"]

#: A version that was refused is tried again after so many seconds: somebody may have restored its artifacts.
RETRY_S = 60.0
#: A store that has owed an answer for so long is told of.
AWAY_S = 4.0


@dataclass(frozen=True, slots=True)
class Served:
    """What answers for an alias."""

    version: ServedVersion
    #: The record that points the alias to it; an older one than the newest, if what that names was refused.
    record: AliasRecord


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is served, at one time."""

    #: By alias. An alias whose version could not be served is missing.
    aliases: Mapping[str, Served] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something is not as it should be."""

    #: The alias that it is about; None: the store.
    alias: str | None
    #: The version that the alias points to and that is not served.
    version: int | None
    what: str
    #: ISO 8601, UTC.
    since: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"alias": self.alias, "version": self.version, "what": self.what, "since": self.since}


@dataclass(eq=False, slots=True)
class _Move:
    """An alias on its way to another version, which is being tried."""

    #: Where the alias points to.
    wanted: AliasRecord
    #: What is tried: that, or where it pointed to before.
    record: AliasRecord
    outcome: Future[tuple[ServedVersion, list[Loaded]]]
    #: Versions that were refused on the way.
    refused: set[int] = field(default_factory=set)


class AliasWatcher:
    """Follows the aliases of one model.

    Each alias that moves has its version tried in a thread of its own, so a version that is slow, or hangs, holds up no
    other alias, and no move of the same one.

    Args:
        registered: the model.
        settings: which aliases, how often.
        admission: tries versions.
        publish: takes what is served, the alias that has moved, and models that were loaded for it. Called from
            threads, one at a time.
        in_memory: the digests of an alias's models that are in memory, the last used last: the models of these groups
            should be there when another version begins to answer.
        log: where changes are told.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        registered: RegisteredModel,
        settings: ServeSettings,
        admission: Admission,
        publish: Callable[[Snapshot, str, list[Loaded]], None],
        *,
        in_memory: Callable[[str], Sequence[str]] = lambda alias: (),
        log: logging.Logger | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registered = registered
        self._settings = settings
        self._admission = admission
        self._publish = publish
        self._in_memory = in_memory
        self._log = log or logging.getLogger(__name__)
        self._clock = clock
        self._aliases: dict[str, Served] = {}
        self._moves: dict[str, _Move] = {}
        #: By version: what is being tried.
        self._tries: dict[int, Future[tuple[ServedVersion, list[Loaded]]]] = {}
        #: By alias: the number of the record that was refused, when it may be tried again, and why.
        self._refused: dict[str, tuple[int, float, Problem]] = {}
        #: By alias: why its record can't be read.
        self._damaged: dict[str, Problem] = {}
        #: When the store was asked what it has not answered yet; None: it owes no answer.
        self._asked_at: float | None = None
        self._away: Problem | None = None
        self._lock = threading.RLock()
        self._woken = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None

    # ---- told to others ------------------------------------------------------------------------------------

    @property
    def is_away(self) -> bool:
        """Whether the store does not answer."""
        return self._away is not None or self._silent_s > AWAY_S

    @property
    def problems(self) -> list[Problem]:
        """What is not as it should be; safe to ask from any thread."""
        found = [problem for _, _, problem in list(self._refused.values())] + list(self._damaged.values())
        away, silent_s = self._away, self._silent_s
        if away is not None:
            found.append(away)
        elif silent_s > AWAY_S:
            found.append(Problem(None, None, f"the store has not answered for {silent_s:.0f} s", _now()))
        return found

    @property
    def _silent_s(self) -> float:
        asked_at = self._asked_at
        return 0.0 if asked_at is None else self._clock() - asked_at

    # ---- the thread ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Look every so often, from a thread."""
        self._thread = threading.Thread(target=self._run, name="umbel-aliases", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Waits for a look that goes on for a second at most."""
        self._stopped = True
        self._woken.set()
        self._admission.close()
        if self._thread is not None:
            self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while not self._stopped:
            try:
                if self._woken.wait(self._settings.poll_s):
                    self._woken.clear()
                    self._end_moves()
                else:
                    self.look()
            except Exception:  # a defect must not leave aliases unwatched
                self._log.exception("looking at the aliases failed; it goes on")

    def look(self) -> None:
        """Look at all aliases once: publish what has been tried, and begin to try what they point to anew."""
        with self._lock:
            ended = self._end_moves()
            for alias in self._settings.aliases:
                with self._faults_of(alias) as fault:
                    record = self._resolve(alias)
                    if alias not in ended:
                        self._follow(alias, record)
                # Others begin when the first is served: of what can't be in one process it has the right of way.
                if fault.is_of_store or (alias == self._settings.alias and not self._is_first_decided):
                    return

    @property
    def _is_first_decided(self) -> bool:
        first = self._settings.alias
        return first in self._aliases or first not in self._moves

    def settle(self, patience_s: float = math.inf) -> None:
        """Look, and wait until what has moved is served or refused.

        Args:
            patience_s: how long to wait for the other aliases when the first one is served.
        """
        with self._lock:
            self.look()
            end = self._clock() + patience_s
            while self._moves:
                had_first = self._settings.alias in self._aliases
                left_s = end - self._clock() if had_first else math.inf
                if left_s <= 0:
                    return
                wait([move.outcome for move in self._moves.values()], min(left_s, 3600.0), FIRST_COMPLETED)
                self._end_moves()
                if not had_first and self._settings.alias in self._aliases:
                    self.look()

    # ---- one alias -----------------------------------------------------------------------------------------

    def _follow(self, alias: str, record: AliasRecord) -> None:
        """Begin to try what an alias points to anew."""
        now = self._aliases.get(alias)
        if now is not None and now.record.number == record.number:  # also if it was moved back meanwhile
            self._refused.pop(alias, None)
            self._moves.pop(alias, None)
            return
        move = self._moves.get(alias)
        if move is not None and move.wanted.number == record.number:
            return
        refused = self._refused.get(alias)
        if refused is not None and refused[0] == record.number and self._clock() < refused[1]:
            return
        self._begin(alias, _Move(record, record, self._tried(alias, record)))

    def _begin(self, alias: str, move: _Move) -> None:
        self._moves[alias] = move
        move.outcome.add_done_callback(lambda _: self._woken.set())

    def _tried(self, alias: str, record: AliasRecord) -> Future[tuple[ServedVersion, list[Loaded]]]:
        """Try a version in a thread; if it is being tried already, that."""
        self._tries = {number: tried for number, tried in self._tries.items() if not tried.done()}
        known = self._tries.get(record.version)
        if known is not None:
            return known
        outcome: Future[tuple[ServedVersion, list[Loaded]]] = Future()
        self._tries[record.version] = outcome
        memory = self._in_memory(alias)
        warm = _groups_of(self._aliases.get(alias), memory)

        def admit() -> None:
            try:
                outcome.set_result(self._admission.admit(self._version(record.version), warm, frozenset(memory)))
            except Exception as error:
                outcome.set_exception(error)

        threading.Thread(target=admit, name=f"umbel-admit-{record.version}", daemon=True).start()
        return outcome

    def _version(self, number: int) -> ModelVersion:
        for held in list(self._aliases.values()):
            if held.version.number == number:
                return held.version.version
        try:
            return self._registered.version(number)
        except StoreUnavailableError:
            raise
        except UmbelError as error:
            raise RefusedError(f"version {number} can't be read", got=one_line(error)) from error

    def _end_moves(self) -> set[str]:
        """Publish, alias by alias, what has been tried; the aliases whose moves have ended."""
        with self._lock:
            ended = {alias: move for alias, move in self._moves.items() if move.outcome.done()}
            for alias, move in ended.items():
                del self._moves[alias]
                with self._faults_of(alias):
                    # It may have moved on meanwhile; and if the store is gone, that is why the version can't be read.
                    if self._resolve(alias).number == move.wanted.number:
                        self._end(alias, move)
            return set(ended)

    def _end(self, alias: str, move: _Move) -> None:
        try:
            version, loaded = move.outcome.result()
        except StoreUnavailableError as error:  # which says nothing about the version: the next look tries it again
            self._refuse(alias, move.wanted, f"version {move.record.version} can't be tried now: {error.what}", 0.0)
        except Exception as error:
            self._go_back(alias, move)
            if move.record is move.wanted:
                self._refuse(alias, move.wanted, one_line(error), RETRY_S)
        else:
            if move.record is move.wanted:
                self._refused.pop(alias, None)
            self._aliases[alias] = Served(version, move.record)
            self._publish(Snapshot(dict(self._aliases)), alias, loaded)
            self._log.info("%s of %s is version %d now", alias, self._settings.model, version.number)

    def _go_back(self, alias: str, move: _Move) -> None:
        """A replica that starts while an alias points to what can't be served goes on with what it pointed to before,
        as its older siblings do.
        """
        refused = move.refused | {move.record.version}
        if alias in self._aliases or len(refused) > 3:
            return
        earlier = [record for record in self._registered.history(alias) if record.version not in refused]
        if earlier:
            self._begin(alias, _Move(move.wanted, earlier[-1], self._tried(alias, earlier[-1]), refused))

    # ---- what is wrong -------------------------------------------------------------------------------------

    def _resolve(self, alias: str) -> AliasRecord:
        self._asked_at = self._clock()
        try:
            record = self._registered.resolve(alias)
        finally:
            self._asked_at = None
        if self._away is not None:
            self._log.info("the store answers again")
            self._away = None
        self._damaged.pop(alias, None)
        return record

    @contextmanager
    def _faults_of(self, alias: str) -> Iterator[_Fault]:
        """What the store can't do ends in a problem: of the store if it is away, of the alias if its record is bad."""
        fault = _Fault()
        try:
            yield fault
        except (StoreUnavailableError, NotFoundError) as error:
            # that an alias is gone means that the store is: nothing deletes aliases
            fault.is_of_store = True
            self._not_seen(error)
        except UmbelError as error:
            text = f"the alias can't be read: {one_line(error)}"
            if alias not in self._damaged:
                self._log.error("%s of %s stays where it is: %s", alias, self._settings.model, text)
                self._damaged[alias] = Problem(alias, None, text, _now())

    def _refuse(self, alias: str, record: AliasRecord, text: str, retry_s: float) -> None:
        before = self._refused.get(alias)
        since = _now()
        if before is not None and before[0] == record.number:
            since = before[2].since
        else:
            self._log.error("%s of %s stays where it is: %s", alias, self._settings.model, text)
        problem = Problem(alias, record.version, text, since)
        self._refused[alias] = (record.number, self._clock() + retry_s, problem)

    def _not_seen(self, error: UmbelError) -> None:
        if self._away is not None:
            return
        missing = isinstance(error, NotFoundError)
        gone = f"the store has nothing of {self._settings.model!r} any more: it was moved, deleted or unmounted"
        text = gone if missing else one_line(error)
        self._log.error("%s; what is loaded goes on", text)
        self._away = Problem(None, None, text, _now())


@dataclass(slots=True)
class _Fault:
    is_of_store: bool = False


def _groups_of(served: Served | None, digests: Sequence[str]) -> list[str]:
    """The groups whose models are in memory, those used last at the end."""
    if served is None:
        return []
    places = {digest: place for place, digest in enumerate(digests)}
    found = [(places[digest], group) for group, digest in served.version.digests.items() if digest in places]
    return [group for _, group in sorted(found)]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
