"""What does one replica consist of? Aliases that are followed, models in memory, predictions, and their log.

It puts the parts together and tells how they are. Ray Serve makes one in each replica
(`umbel.cluster.serving.replica`); tests make one in their own process. It must not know Ray or HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from umbel.cluster.serving.aliases import AliasWatcher, Served, Snapshot
from umbel.cluster.serving.asking import asked_in
from umbel.cluster.serving.errors import NotReadyError
from umbel.cluster.serving.models import Loaded, ModelCache
from umbel.cluster.serving.predict import Predictor
from umbel.cluster.serving.recorded_code import RecordedCode
from umbel.cluster.serving.settings import ServeSettings
from umbel.cluster.serving.versions import Admission, one_line
from umbel.scheduler.errors import NotFoundError, StoreUnavailableError, UmbelError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.predictions.log import OutcomeLog, PredictionLog
from umbel.storage.registry.registry import RegisteredModel

__all__ = ["ModelServer"]

#: Threads in which models are loaded, which waits for the store mostly; and those of a shadow.
_LOADERS = 8
_SHADOW_LOADERS = 2
#: Seconds that a replica, when it starts, waits for the versions of other aliases than the one that answers.
_OTHERS_S = 5.0


class ModelServer:
    """Serves one registered model.

    Args:
        objects: the store.
        settings: what is served, and how.
        replica: what this replica is called, for the log of predictions.
        log: where changes of versions are told.

    Cost: the versions that the aliases point to are tried before it returns: each model is read and loaded once. Those
    of other aliases than the first go on being tried afterwards, if they take long.
    """

    def __init__(
        self,
        objects: ObjectStore,
        settings: ServeSettings,
        *,
        replica: str = "local",
        log: logging.Logger | None = None,
    ) -> None:
        self.settings = settings
        self.replica = replica
        self._objects = objects
        self._threads = ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1)), "umbel-predict")
        self._loaders = ThreadPoolExecutor(_LOADERS, "umbel-load")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = ExitStack()
        # A store that does not answer must not keep a request longer than it would wait; the logs have more patience,
        # so they have the store for themselves.
        reading = _copy(objects)
        self._closing.enter_context(reading.patience(settings.load_timeout_s / 2))
        self._registered = RegisteredModel(reading, settings.model)
        self._code = RecordedCode(reading) if settings.trust else None
        self.cache = ModelCache(settings.cached_groups, self._loaders)
        # A shadow that shared these would evict the models that answer, and its loads would go before theirs.
        self._shadow_loaders = ThreadPoolExecutor(_SHADOW_LOADERS, "umbel-load-shadow")
        self._shadow_cache = ModelCache(settings.cached_groups, self._shadow_loaders)
        self._predictions = PredictionLog(_copy(objects), settings.model, replica) if settings.log else None
        self._outcomes: OutcomeLog | None = None
        self._watcher = AliasWatcher(
            RegisteredModel(reading, settings.model),
            settings,
            Admission(settings.trust, settings.load_timeout_s, self._code),
            self._publish,
            in_memory=lambda alias: self._cache_of(alias).digests,
            log=log,
        )
        self.predictor = Predictor(
            settings,
            self.cache,
            asked_in(self._threads),
            self._predictions,
            lambda: self._watcher.is_away,
            shadow_cache=self._shadow_cache,
        )
        self._watcher.settle(_OTHERS_S)

    def _cache_of(self, alias: str) -> ModelCache:
        return self._shadow_cache if alias == self.settings.shadow else self.cache

    def _publish(self, snapshot: Snapshot, alias: str, loaded: list[Loaded]) -> None:
        """Take over what is served, at once for all requests that begin afterwards."""

        def take() -> None:
            self._cache_of(alias).put(loaded)
            self.predictor.snapshot = snapshot

        if self._loop is None:
            take()
        else:
            self._loop.call_soon_threadsafe(take)

    # ---- life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to follow the aliases. Called in the event loop that predictions are made in."""
        self._loop = asyncio.get_running_loop()
        self._watcher.start()

    def look(self) -> None:
        """Look at the aliases now, and wait until what has moved is served or refused."""
        self._watcher.settle()

    async def stop(self) -> None:
        """Write what waits, and end."""
        await asyncio.to_thread(self._watcher.stop)
        await self.predictor.close()
        for log in (self._predictions, self._outcomes):
            if log is not None:
                await asyncio.to_thread(log.close)
        for threads in (self._threads, self._loaders, self._shadow_loaders):
            threads.shutdown(wait=False, cancel_futures=True)
        if self._code is not None:
            self._code.close()
        self._closing.close()

    # ---- what it tells -------------------------------------------------------------------------------------

    @property
    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether predictions can be made, and what is to be told of it."""
        served = self.predictor.snapshot.aliases
        ready = self.settings.alias in served
        problems = [problem.as_dict() for problem in self._watcher.problems]
        status = "not ready" if not ready else "degraded" if problems else "ready"
        versions = {alias: each.version.number for alias, each in served.items()}
        return ready, {"status": status, "serving": versions, "problems": problems}

    def status(self) -> dict[str, Any]:
        """What is being served, and what the registry has. Reads the store; what it can't say is left out."""
        snapshot = self.predictor.snapshot
        told: dict[str, Any] = {
            "model": self.settings.model,
            **self.settings.as_dict(),
            "serving": {alias: _served(each) for alias, each in snapshot.aliases.items()},
            **{name: value for name, value in self.readiness[1].items() if name != "serving"},
            "replica": self.replica,
            "cache": {"models": len(self.cache), "hits": self.cache.hits, "loads": self.cache.loads},
            "shadows_dropped": self.predictor.shadows_dropped,
            "logged": None if self._predictions is None else asdict(self._predictions.state),
        }
        if not self._watcher.is_away:
            try:
                told["versions"] = self._registered.versions()
                told["aliases"] = self._registered.aliases()
            except UmbelError as error:
                told["problems"] = [*told["problems"], {"what": one_line(error)}]
        return told

    def lineage(self, group: str) -> dict[str, Any]:
        """What the model of a group was made from.

        Raises:
            NotReadyError: the store does not answer; without it, its run would look as if it were deleted.
        """
        name, served = self.predictor.find(group)
        self._check_store()
        version = served.version.version
        return {
            "group": name,
            "version": version.number,
            "alias": self.settings.alias,
            "digest": served.version.digests[name],
            "lineage": _plain(version.lineage(name).as_dict()),
        }

    def _check_store(self) -> None:
        if not self._watcher.is_away:
            try:
                self._registered.resolve(self.settings.alias)
                return
            except (StoreUnavailableError, NotFoundError):  # nothing deletes aliases
                pass
            except UmbelError:  # of this alias's record
                return
        raise NotReadyError(
            "the store does not answer, and only it knows what a model was made from", hint="GET /readyz says more"
        )

    def outcome(self, request_id: str, outcome: Any) -> None:
        """Record what turned out to be true."""
        if self._outcomes is None:
            self._outcomes = OutcomeLog(_copy(self._objects), self.settings.model)
        self._outcomes.add(request_id, outcome)

    def flush(self) -> None:
        """Write what waits to the store."""
        for log in (self._predictions, self._outcomes):
            if log is not None:
                log.flush()


def _served(each: Served) -> dict[str, Any]:
    version, record = each.version.version, each.record
    made = version.record
    return {
        "version": version.number,
        "since": record.created,
        "by": record.user,
        "why": record.why,
        "groups": len(each.version.digests),
        "registered": made.get("created"),
        "run": made.get("run"),
        "node": made.get("node"),
        "metric": version.metric,
        "rows": made.get("rows"),
        "schema": version.schema,
    }


def _plain(value: Any) -> Any:
    """Facts as JSON has them; what has no form there as text."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return str(value)


def _copy(objects: ObjectStore) -> ObjectStore:
    """The same store, for itself: patience is a property of the object."""
    copied: ObjectStore = pickle.loads(pickle.dumps(objects))
    return copied
