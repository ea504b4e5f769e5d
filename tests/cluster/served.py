"""What the tests of serving share: registered models, and a client that calls the interface in this process."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import umbel
from umbel.cluster.serving.app import ServingApp
from umbel.cluster.serving.server import ModelServer
from umbel.cluster.serving.settings import ServeSettings, make_settings
from umbel.storage.registry.model_version import ModelVersion
from umbel.storage.store import Store

GROUPS = ["DEU", "FRA", "ITA"]
MODEL = "gdp"


def scale(factor: float, *, batches: bool = False, fails: bool = False) -> Any:
    """A model that multiplies. Its class is local, so that it is pickled with its code."""

    class Scale:
        def predict(self, inputs: list[float]) -> list[float]:
            if fails:
                raise ZeroDivisionError("no answer")
            return [factor * value for value in inputs]

    class BatchScale(Scale):
        def predict_batch(self, many: list[list[float]]) -> list[list[float]]:
            return [[factor * value for value in inputs] for inputs in many]

    return BatchScale() if batches else Scale()


def register(
    store: Store,
    factor: float,
    *,
    groups: Sequence[str] = GROUPS,
    model: Callable[[float], Any] = scale,
    **options: Any,
) -> ModelVersion:
    """Run a sweep of one trial a group, and register its models, which multiply by ``factor``, by twice that …"""
    made = {group: model(factor * (n + 1)) for n, group in enumerate(groups)}

    def fit(config: dict[str, Any]) -> umbel.Result:
        return umbel.Result({"mae": 1.0}, model=made[config["country"]])

    sweep = umbel.sweep(fit, space={"x": [1]}, over={"country": list(groups)}, trials=1, metric="mae", mode="min")
    run = umbel.run(sweep, store=store.url, executor="inline", progress="quiet", fresh=True)
    return store.registry.register(run, model=MODEL, **{"inputs": [1.0, 2.0], **options})


def promote(store: Store, version: int, alias: str = "champion") -> None:
    store.registry.model(MODEL).set_alias(alias, version)


def damage(store: Store, version: ModelVersion, group: str) -> None:
    """Change bytes of a group's model where it lies."""
    row = version.row(group)
    pack, offset, length = row["model_at"].split(":")
    path = Path(store.url) / "artifacts" / "packs" / pack
    data = bytearray(path.read_bytes())
    data[int(offset) + int(length) // 2] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(bytes(data))


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    content: Any


class Client:
    """Calls an ASGI application."""

    def __init__(self, server: ModelServer) -> None:
        self.server = server
        self.app = ServingApp(server)

    async def call(self, method: str, path: str, content: Any = None, /, **headers: str) -> Reply:
        body = content if isinstance(content, bytes) else b"" if content is None else json.dumps(content).encode()
        names = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in names.items()],
        }
        sent: list[Any] = []
        messages = iter([{"type": "http.request", "body": body}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        start, *rest = sent
        told = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return Reply(start["status"], told, json.loads(b"".join(each["body"] for each in rest)))

    async def predict(self, group: str, inputs: Any, /, **headers: str) -> Reply:
        return await self.call("POST", f"/v1/models/{MODEL}/groups/{group}:predict", {"inputs": inputs}, **headers)


@asynccontextmanager
async def serving(store: Store, settings: ServeSettings | None = None, **options: Any) -> Any:
    """A replica in this process; its aliases are looked at when a test says so."""
    settings = settings or make_settings(MODEL, trust=True, poll_s=3600.0, **options)
    server = ModelServer(store.objects, settings)
    await server.start()
    try:
        yield Client(server)
    finally:
        await server.stop()


async def until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Wait for something that other threads or tasks bring about."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        await asyncio.sleep(0.005)


async def look(client: Client) -> None:
    """Let the replica look at its aliases now."""
    await asyncio.to_thread(client.server.look)
    await asyncio.sleep(0)
