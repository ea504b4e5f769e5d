"""What does the model of a group answer to these inputs, which version's model is it, and what is recorded of it?

One `Predictor` a replica, used from its event loop; models are asked, and loaded, in threads. It must not know HTTP or
Ray.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

from umbel.cluster.serving.aliases import Served, Snapshot
from umbel.cluster.serving.asking import Ask, asked_in
from umbel.cluster.serving.errors import InputsError, NotReadyError
from umbel.cluster.serving.models import Loaded, ModelCache
from umbel.cluster.serving.settings import ServeSettings
from umbel.cluster.serving.split import key_hash, place_of
from umbel.cluster.serving.versions import ServedVersion, one_line
from umbel.scheduler.errors import NotFoundError, StoreUnavailableError, UmbelError
from umbel.storage.predictions.log import PredictionLog

__all__ = ["Answer", "Predictor"]

#: Predictions of a shadow that may wait; of more none is made, so that a slow one can't pile up.
_SHADOWS = 64
#: Values that inputs may have, to be checked where all other requests wait: a check takes about 6 µs a value.
_SMALL = 200
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered."""

    outputs: Any
    version: int
    alias: str
    digest: str
    group: str


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Which version answers."""

    alias: str
    served: Served
    group: str
    #: How often this arm was to be chosen; None: it was not left to chance.
    share: float | None

    def is_same_model(self, other: _Chosen) -> bool:
        """Whether the models are the same, byte for byte, and are asked alike."""
        mine, its = self.served.version, other.served.version
        return mine.digests[self.group] == its.digests[other.group] and mine.version.takes == its.version.takes


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked, and by whom."""

    id: str
    key: str | None
    inputs: object
    is_large: bool


class Predictor:
    """Answers for one model.

    Args:
        settings: what is served.
        cache: the models in memory.
        ask: asks a loaded model.
        log: where predictions are recorded; None: nowhere.
        is_away: whether the store is known not to answer.
        shadow_cache: the shadow's models in memory, if there is a shadow.
    """

    def __init__(
        self,
        settings: ServeSettings,
        cache: ModelCache,
        ask: Ask,
        log: PredictionLog | None = None,
        is_away: Callable[[], bool] = lambda: False,
        *,
        shadow_cache: ModelCache | None = None,
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._ask = ask
        self._log = log
        self._is_away = is_away
        self.snapshot = Snapshot()
        self._shadow_cache = shadow_cache
        self._shadow_thread = ThreadPoolExecutor(1, "umbel-shadow")
        self._ask_as_shadow = asked_in(self._shadow_thread)
        #: For what would keep the event loop from all other requests.
        self._side = ThreadPoolExecutor(2, "umbel-large")
        self._shadows: set[asyncio.Task[None]] = set()
        self.shadows_dropped = 0

    # ---- answering -----------------------------------------------------------------------------------------

    async def predict(self, group: str, inputs: object, request_id: str, key: str | None = None) -> Answer:
        """What the model of a group answers.

        Args:
            group: its canonical text, or its only value.
            inputs: plain data.
            request_id: names the request in the log.
            key: names the caller: requests with one key meet one arm. None: the request's id stands for it.

        Raises:
            NotFoundError: there is no such group; near names are given.
            InputsError: the inputs are not what was registered.
            NotReadyError: nothing can be served yet, or the model can't be loaded, or not in time.
            AskFailedError: the model raised.
        """
        settings = self._settings
        chosen = self._choose(group, request_id if key is None else key)
        served = chosen.served.version
        request = _Request(request_id, key, inputs, _is_large(inputs))
        await self._check(served, request)
        sampled = self._log is not None and _is_sampled(request_id, settings)
        try:
            load = partial(served.load, chosen.group)
            loaded = await self._load(self._cache, served.digests[chosen.group], load)
            outputs, seconds = await self._ask(loaded, inputs)
        except Exception as error:
            if sampled and not isinstance(error, (NotReadyError, InputsError)):  # neither is the model's fault
                await self._record(chosen, request, None, None)
            raise
        if sampled:
            await self._record(chosen, request, outputs, seconds)
            if settings.shadow is not None:
                await self._ask_shadow(chosen, request, outputs, seconds)
        return Answer(outputs, served.number, chosen.alias, served.digests[chosen.group], chosen.group)

    def find(self, group: object) -> tuple[str, Served]:
        """The canonical text of a group, and what answers for the first alias; see `predict` for what it raises."""
        served = self._served()
        return served.version.find(group), served

    def _served(self) -> Served:
        served = self.snapshot.aliases.get(self._settings.alias)
        if served is None:
            raise NotReadyError(
                f"no version of {self._settings.model!r} can be served yet", hint="GET /readyz says why"
            )
        return served

    def _choose(self, group: str, key: str) -> _Chosen:
        settings, snapshot = self._settings, self.snapshot
        default = self._served()
        try:
            name = default.version.find(group)
        except NotFoundError:
            return self._only_elsewhere(group, snapshot)
        shares = settings.splits.of(name).shares
        arms = {alias: snapshot.aliases.get(alias) for alias, _ in shares}
        if any(served is None or name not in served.version.digests for served in arms.values()):
            return _Chosen(settings.alias, default, name, None)  # a challenger need not have all groups
        if len(shares) == 1:
            alias, share = shares[0][0], None
        else:
            placed = f"{name}\0{key}" if settings.sticky_per_group else key
            alias, share = settings.splits.of(name).arm(place_of(placed, settings.salt))
        return _Chosen(alias, snapshot.aliases[alias], name, share)

    def _only_elsewhere(self, group: str, snapshot: Snapshot) -> _Chosen:
        """A group that only another arm has is answered by that one."""
        for alias in self._settings.splits.aliases:
            served = snapshot.aliases.get(alias)
            if served is not None and group in served.version.digests:
                return _Chosen(alias, served, group, None)
        name = self._served().version.find(group)  # raises, with near names
        return _Chosen(self._settings.alias, self._served(), name, None)

    async def _check(self, served: ServedVersion, request: _Request) -> None:
        """Raise InputsError if the inputs are not what was registered."""
        mistakes = await self._aside(request, partial(served.inputs.mistakes, request.inputs))
        if not mistakes:
            return
        where = ".".join(map(str, ["inputs", *mistakes[0].path]))
        error = InputsError(
            f"the inputs are not what {self._settings.model!r} takes",
            got=f"{where}: {mistakes[0].message}",
            hint=f"GET /v1/models/{self._settings.model} has the schema",
        )
        error.mistakes = mistakes
        raise error

    async def _aside(self, request: _Request, work: Callable[[], _T]) -> _T:
        """Do what takes time by the size of the inputs: of large ones in a thread."""
        if not request.is_large:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._side, work)

    async def _load(self, cache: ModelCache, digest: str, load: Callable[[], Loaded]) -> Loaded:
        if digest not in cache and self._is_away():
            raise NotReadyError("this model is not loaded, and the store does not answer now")
        try:
            return await asyncio.wait_for(cache.get(digest, load), self._settings.load_timeout_s)
        except TimeoutError:
            raise NotReadyError(
                "the model could not be loaded in time", got=f"{self._settings.load_timeout_s:g} s"
            ) from None
        except StoreUnavailableError as error:
            raise NotReadyError("this model is not loaded, and the store does not answer", got=error.what) from error
        except UmbelError as error:
            raise NotReadyError(
                "this model can't be loaded", got=one_line(error), hint="GET /readyz may say more"
            ) from error

    # ---- recording -----------------------------------------------------------------------------------------

    async def _record(
        self, chosen: _Chosen, request: _Request, outputs: Any, seconds: float | None, *, shadow: bool = False
    ) -> None:
        await self._aside(request, lambda: self._write(chosen, request, outputs, seconds, shadow))

    def _write(self, chosen: _Chosen, request: _Request, outputs: Any, seconds: float | None, shadow: bool) -> None:
        assert self._log is not None
        settings, version = self._settings, chosen.served.version
        text = json.dumps(request.inputs, separators=(",", ":"), sort_keys=True)
        self._log.add(
            request.id,
            group=chosen.group,
            version=version.number,
            arm=chosen.alias,
            alias=settings.alias,
            output=None if seconds is None else json.dumps(outputs, separators=(",", ":")),
            shadow=shadow,
            digest=version.digests[chosen.group],
            input_digest=sha256(text.encode()).hexdigest(),
            inputs=text if settings.log_inputs else None,
            latency_s=seconds,
            key_hash=None if request.key is None else key_hash(request.key, settings.salt),
            share=chosen.share,
            sampled_at=settings.log,
        )

    # ---- the shadow ----------------------------------------------------------------------------------------

    async def _ask_shadow(self, answered: _Chosen, request: _Request, outputs: Any, seconds: float) -> None:
        """See to it that the shadow's answer is recorded, too; without waiting for it."""
        alias, group = self._settings.shadow, answered.group
        served = None if alias is None else self.snapshot.aliases.get(alias)
        if alias is None or served is None or group not in served.version.digests:
            return
        chosen = _Chosen(alias, served, group, None)
        if chosen.is_same_model(answered):  # it would answer the same
            await self._record(chosen, request, outputs, seconds, shadow=True)
        elif len(self._shadows) >= _SHADOWS:
            self.shadows_dropped += 1
        else:
            task = asyncio.get_running_loop().create_task(self._shadow(chosen, request))
            self._shadows.add(task)
            task.add_done_callback(self._shadows.discard)

    async def _shadow(self, chosen: _Chosen, request: _Request) -> None:
        """What the shadow would have answered. Nobody waits for it, and what it raises is recorded as no output."""
        assert self._shadow_cache is not None
        version = chosen.served.version
        outputs, seconds = None, None
        try:
            load = partial(version.load, chosen.group)
            loaded = await self._load(self._shadow_cache, version.digests[chosen.group], load)
            outputs, seconds = await self._ask_as_shadow(loaded, request.inputs)
        except NotReadyError:
            return
        except Exception:
            outputs, seconds = None, None
        await self._record(chosen, request, outputs, seconds, shadow=True)

    async def close(self) -> None:
        """Wait for the shadows that are under way, then end."""
        if self._shadows:
            await asyncio.wait(self._shadows, timeout=5.0)
        for threads in (self._shadow_thread, self._side):
            threads.shutdown(wait=False, cancel_futures=True)


def _is_large(inputs: object) -> bool:
    """Whether there is so much that the event loop should not go through it. Cost: some microseconds at most."""
    left, waiting = _SMALL, [inputs]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            left -= len(each) // 100
        elif isinstance(each, (list, dict)):
            left -= len(each)
        if left < 0:
            return True
        if isinstance(each, (list, dict)):
            waiting += each.values() if isinstance(each, dict) else each
    return False


def _is_sampled(request_id: str, settings: ServeSettings) -> bool:
    """Whether a request is logged: by its id, so that its answer, its shadow and its retries agree."""
    return settings.log >= 1 or place_of(request_id, f"log/{settings.salt}") < settings.log
