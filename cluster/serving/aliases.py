"""Which version does each alias stand for now, and how does a replica notice that one has moved?

A thread looks at the aliases every second or so. A version that an alias points to anew is tried first
(`umbel.cluster.serving.versions`); then all that changed is published at once, so a request sees one state from its
beginning to its end. What can't be served keeps out: the alias goes on with what it had. It must not know requests.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from umbel.cluster.serving.errors import RefusedError
from umbel.cluster.serving.models import Loaded
from umbel.cluster.serving.settings import ServeSettings
from umbel.cluster.serving.versions import Admission, ServedVersion, one_line
from umbel.scheduler.errors import NotFoundError, UmbelError
from umbel.storage.registry.records import AliasRecord
from umbel.storage.registry.registry import RegisteredModel

__all__ = ["AliasWatcher", "Problem", "Served", "Snapshot"]

#: A version that was refused is tried again after so many seconds: somebody may have restored its artifacts.
RETRY_S = 60.0
#: A store that has not answered for so long is told of.
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


class AliasWatcher:
    """Follows the aliases of one model.

    Args:
        registered: the model; used by this object's thread only.
        settings: which aliases, how often.
        admission: tries versions.
        publish: takes what is served, and models that were loaded for it. Called from the thread.
        warm: the groups whose models should be there when a new version begins to answer.
        held: whether a model of a digest is in memory.
        log: where changes are told.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        registered: RegisteredModel,
        settings: ServeSettings,
        admission: Admission,
        publish: Callable[[Snapshot, list[Loaded]], None],
        *,
        warm: Callable[[], Collection[str]] = list,
        held: Callable[[str], bool] = lambda digest: False,
        log: logging.Logger | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registered = registered
        self._settings = settings
        self._admission = admission
        self._publish = publish
        self._warm = warm
        self._held = held
        self._log = log or logging.getLogger(__name__)
        self._clock = clock
        self._aliases: dict[str, Served] = {}
        #: By alias: the number of the record that was refused, when it may be tried again, and why.
        self._refused: dict[str, tuple[int, float, Problem]] = {}
        self._answered_at: float | None = None  # when the store answered last
        self._away: Problem | None = None
        self._began_at = clock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # ---- told to others ------------------------------------------------------------------------------------

    @property
    def is_away(self) -> bool:
        """Whether the store does not answer."""
        return self._away is not None or self._silent_s > max(AWAY_S, 4 * self._settings.poll_s)

    @property
    def problems(self) -> list[Problem]:
        """What is not as it should be; safe to ask from any thread."""
        found = [problem for _, _, problem in list(self._refused.values())]
        away = self._away
        if away is not None:
            found.append(away)
        elif self.is_away:
            found.append(Problem(None, None, f"the store has not answered for {self._silent_s:.0f} s", _now()))
        return found

    @property
    def _silent_s(self) -> float:
        return self._clock() - (self._began_at if self._answered_at is None else self._answered_at)

    # ---- the thread ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Look every so often, from a thread."""
        self._thread = threading.Thread(target=self._run, name="umbel-aliases", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Waits for a look that goes on for a second at most."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while not self._stop.wait(self._settings.poll_s):
            try:
                self.look()
            except Exception:  # a defect must not leave aliases unwatched
                self._log.exception("looking at the aliases failed; it goes on")

    def look(self) -> None:
        """Look at all aliases once, and publish what has changed."""
        changed: dict[str, Served] = {}
        loaded: list[Loaded] = []
        for alias in self._settings.aliases:
            try:
                record = self._registered.resolve(alias)
                self._seen()
                served = self._follow(alias, record, loaded)
            except UmbelError as error:  # that an alias is gone means that the store is: nothing deletes aliases
                self._not_seen(error)
                return self._publish_changes(changed, loaded)
            if served is not None:
                changed[alias] = served
        return self._publish_changes(changed, loaded)

    def _publish_changes(self, changed: dict[str, Served], loaded: list[Loaded]) -> None:
        if changed:
            self._aliases |= changed
            self._publish(Snapshot(dict(self._aliases)), loaded)
            for alias, served in changed.items():
                number = served.record.version
                self._log.info("%s of %s is version %d now", alias, self._settings.model, number)

    def _follow(self, alias: str, record: AliasRecord, loaded: list[Loaded]) -> Served | None:
        """What an alias stands for anew; None: nothing has changed."""
        now = self._aliases.get(alias)
        if now is not None and now.record.number == record.number:
            self._refused.pop(alias, None)
            return None
        refused = self._refused.get(alias)
        if refused is not None and refused[0] == record.number and self._clock() < refused[1]:
            return None
        try:
            served = self._admitted(record, loaded)
        except RefusedError as error:
            self._registered.resolve(alias)  # raises if it is the store that is gone
            self._refuse(alias, record, error, is_new=refused is None or refused[0] != record.number)
            return self._earlier(alias, record, loaded) if now is None else None
        self._refused.pop(alias, None)
        return served

    def _admitted(self, record: AliasRecord, loaded: list[Loaded]) -> Served:
        for held in self._aliases.values():
            if held.version.number == record.version:
                return Served(held.version, record)
        try:
            version = self._registered.version(record.version)
        except UmbelError as error:
            raise RefusedError(f"version {record.version} can't be read", got=one_line(error)) from error
        served, models = self._admission.admit(version, self._warm(), self._held)
        loaded += models
        return Served(served, record)

    def _earlier(self, alias: str, record: AliasRecord, loaded: list[Loaded]) -> Served | None:
        """A replica that starts while an alias points to what can't be served goes on with what it pointed to before,
        as its older siblings do.
        """
        tried = {record.version}
        for before in reversed(self._registered.history(alias)):
            if before.version in tried or len(tried) > 3:
                continue
            tried.add(before.version)
            try:
                return self._admitted(before, loaded)
            except RefusedError:
                continue
        return None

    def _refuse(self, alias: str, record: AliasRecord, error: RefusedError, is_new: bool) -> None:
        text = one_line(error)
        if is_new:
            self._log.error("%s of %s stays where it is: %s", alias, self._settings.model, text)
        since = _now() if is_new else self._refused[alias][2].since
        problem = Problem(alias, record.version, text, since)
        self._refused[alias] = (record.number, self._clock() + RETRY_S, problem)

    def _seen(self) -> None:
        self._answered_at = self._clock()
        if self._away is not None:
            self._log.info("the store answers again")
        self._away = None

    def _not_seen(self, error: UmbelError) -> None:
        if self._away is not None:
            return
        missing = isinstance(error, NotFoundError)
        text = f"the store can't be read: {one_line(error)}" if missing else one_line(error)
        self._log.error("%s; what is loaded goes on", text)
        self._away = Problem(None, None, text, _now())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
