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
from typing import Any

from umbel.cluster.serving.aliases import Served, Snapshot
from umbel.cluster.serving.asking import Ask, asked_in
from umbel.cluster.serving.errors import InputsError, NotReadyError
from umbel.cluster.serving.models import Loaded, ModelCache
from umbel.cluster.serving.settings import ServeSettings
from umbel.cluster.serving.split import key_hash, place_of
from umbel.cluster.serving.versions import one_line
from umbel.scheduler.errors import NotFoundError, StoreUnavailableError, UmbelError
from umbel.storage.predictions.log import PredictionLog

__all__ = ["Answer", "Predictor"]

#: Predictions of a shadow that may wait; of more none is made, so that a slow one can't pile up.
_SHADOWS = 64


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


class Predictor:
    """Answers for one model.

    Args:
        settings: what is served.
        cache: the models in memory.
        ask: asks a loaded model.
        log: where predictions are recorded; None: nowhere.
        is_away: whether the store is known not to answer.
    """

    def __init__(
        self,
        settings: ServeSettings,
        cache: ModelCache,
        ask: Ask,
        log: PredictionLog | None = None,
        is_away: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._ask = ask
        self._log = log
        self._is_away = is_away
        self.snapshot = Snapshot()
        self._shadow_thread = ThreadPoolExecutor(1, "umbel-shadow")
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
        mistakes = served.inputs.mistakes(inputs)
        if mistakes:
            first = mistakes[0]
            where = ".".join(map(str, ["inputs", *first.path]))
            error = InputsError(
                f"the inputs are not what {settings.model!r} takes",
                got=f"{where}: {first.message}",
                hint=f"GET /v1/models/{settings.model} has the schema",
            )
            error.mistakes = mistakes
            raise error
        sampled = self._log is not None and _is_sampled(request_id, settings)
        try:
            loaded = await self._load(served.digests[chosen.group], partial(served.load, chosen.group))
            outputs, seconds = await self._ask(loaded, inputs)
        except Exception as error:
            if sampled and not isinstance(error, NotReadyError):
                self._record(chosen, request_id, key, inputs, None, None)
            raise
        if sampled:
            self._record(chosen, request_id, key, inputs, outputs, seconds)
            if settings.shadow is not None:
                self._start_shadow(chosen.group, request_id, key, inputs)
        return Answer(outputs, served.number, chosen.alias, served.digests[chosen.group], chosen.group)

    def find(self, group: str) -> tuple[str, Served]:
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

    async def _load(self, digest: str, load: Callable[[], Loaded]) -> Loaded:
        if digest not in self._cache and self._is_away():
            raise NotReadyError("this model is not loaded, and the store does not answer now")
        try:
            return await asyncio.wait_for(self._cache.get(digest, load), self._settings.load_timeout_s)
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

    def _record(
        self,
        chosen: _Chosen,
        request_id: str,
        key: str | None,
        inputs: object,
        outputs: Any,
        seconds: float | None,
        *,
        shadow: bool = False,
    ) -> None:
        assert self._log is not None
        text = json.dumps(inputs, separators=(",", ":"), sort_keys=True)
        self._log.add(
            request_id,
            group=chosen.group,
            version=chosen.served.version.number,
            arm=chosen.alias,
            alias=self._settings.alias,
            output=None if seconds is None else json.dumps(outputs, separators=(",", ":")),
            shadow=shadow,
            digest=chosen.served.version.digests[chosen.group],
            input_digest=sha256(text.encode()).hexdigest(),
            inputs=text if self._settings.log_inputs else None,
            latency_s=seconds,
            key_hash=None if key is None else key_hash(key, self._settings.salt),
            share=chosen.share,
            sampled_at=self._settings.log,
        )

    def _start_shadow(self, group: str, request_id: str, key: str | None, inputs: object) -> None:
        alias = self._settings.shadow
        served = None if alias is None else self.snapshot.aliases.get(alias)
        if alias is None or served is None or group not in served.version.digests:
            return
        if len(self._shadows) >= _SHADOWS:
            self.shadows_dropped += 1
            return
        chosen = _Chosen(alias, served, group, None)
        task = asyncio.get_running_loop().create_task(self._shadow(chosen, request_id, key, inputs))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _shadow(self, chosen: _Chosen, request_id: str, key: str | None, inputs: object) -> None:
        """What the shadow would have answered. Nobody waits for it, and what it raises is recorded as no output."""
        version = chosen.served.version
        outputs, seconds = None, None
        try:
            loaded = await self._load(version.digests[chosen.group], partial(version.load, chosen.group))
            outputs, seconds = await asked_in(self._shadow_thread)(loaded, inputs)
        except NotReadyError:
            return
        except Exception:
            outputs, seconds = None, None
        self._record(chosen, request_id, key, inputs, outputs, seconds, shadow=True)

    async def close(self) -> None:
        """Wait for the shadows that are under way, then end."""
        if self._shadows:
            await asyncio.wait(self._shadows, timeout=5.0)
        self._shadow_thread.shutdown(wait=False, cancel_futures=True)


def _is_sampled(request_id: str, settings: ServeSettings) -> bool:
    """Whether a request is logged: by its id, so that its answer, its shadow and its retries agree."""
    return settings.log >= 1 or place_of(request_id, f"log/{settings.salt}") < settings.log
