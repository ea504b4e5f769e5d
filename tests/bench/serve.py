"""What does serving a registered model cost over a Ray Serve app that is written by hand?

Measured: 200 groups, asked by two callers at a time over HTTP on kept connections, groups drawn from Zipf's law. The
apps by hand are what Serve's documentation would have one write for these models: one deployment, a ``__call__`` that
reads JSON and answers JSON, and either all models in memory or three a replica, by ``serve.multiplexed``, each read
from a file when it is asked for. Umbel's servers keep 200 and three. All run in one Ray, behind one proxy, with the
same limits and without access logs, and are asked in blocks that alternate, so that whatever else the machine does hits
all. Last, the champion is moved under load, where three models are in memory.

Must hold: the median at most 1.15 times that of the app by hand, with all models in memory and with three; no request
fails while the champion moves, and each move is served within five seconds.
"""

from __future__ import annotations

import http.client
import json
import pickle
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

import umbel
from tests.bench.isolation import Isolated
from tests.bench.measurement import Measurement, at_most
from tests.bench.workload import start_ray

__all__ = ["LIMIT_S", "measure"]

LIMIT_S = 240.0
GROUPS = [f"g{n:03}" for n in range(200)]
CALLERS = 2
BLOCKS = 6
INPUTS = [float(n) for n in range(12)]
#: How much rarer each next group is: a common figure for what people ask for.
EXPONENT = 1.1


def measure(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, Any]]:
    """The arm; ``divisor`` makes it smaller."""
    found = isolated(drive, requests=max(60, 3000 // divisor), folder=str(isolated.folder))
    moved = found["moved"]
    return [
        *_beside(found["umbel"], found["by hand"], "all models in memory", ""),
        *_beside(
            found["umbel, three cached"],
            found["by hand, three cached"],
            "three of 200 in memory",
            f"; {found['hits']:.0%} found in memory",
        ),
        Measurement(
            "requests that failed while the champion moved",
            moved["failed"],
            "requests",
            at_most(0),
            f"of {moved['requests']:,}, over {moved['moves']} moves, three of 200 models in memory",
        ),
        Measurement("slowest move, until it is served", moved["slowest_s"], "s", at_most(5.0)),
    ], found


def _beside(ours: dict[str, float], theirs: dict[str, float], which: str, note: str) -> list[Measurement]:
    """The figures of a server beside those of an app by hand."""
    p50, p99 = (f"{_ms(ours[name])} against {_ms(theirs[name])}" for name in ("p50_s", "p99_s"))
    return [
        Measurement(
            f"median request beside an app by hand, {which}",
            ours["p50_s"] / theirs["p50_s"],
            "x",
            at_most(1.15),
            p50 + note,
        ),
        Measurement(f"99th percentile beside it, {which}", ours["p99_s"] / theirs["p99_s"], "x", None, p99),
        Measurement(f"requests a second, {which}", ours["rate"], "/s", None, f"by hand {theirs['rate']:.0f}"),
    ]


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def drive(requests: int, folder: str) -> dict[str, Any]:
    """All of it, in one Ray."""
    from ray import serve

    store, models = _register(Path(folder) / "store")
    files = Path(folder) / "models"
    files.mkdir()
    for group, model in models.items():
        (files / group).write_bytes(cloudpickle.dumps(model))
    start_ray()
    options: dict[str, Any] = {"store": store, "trust": True, "cpus": 0.1}
    with (
        umbel.serve("gdp", port=0, prefix="/umbel", cached_groups=200, **options) as server,
        umbel.serve("gdp", prefix="/cold", name="cold", cached_groups=3, **options),
    ):
        port = int(server.url.removesuffix("/umbel").rpartition(":")[2])
        serve.run(_by_hand(models), name="hand", route_prefix="/hand")
        serve.run(_by_hand_cached(files), name="hand-cached", route_prefix="/hand-cached")
        paths = {
            "umbel": "/umbel/v1/models/gdp/groups",
            "by hand": "/hand/groups",
            "umbel, three cached": "/cold/v1/models/gdp/groups",
            "by hand, three cached": "/hand-cached/groups",
        }
        for path in paths.values():
            _ask(port, path, len(GROUPS) * 2, everyone=True)
        before = _get(port, "/cold/v1/models/gdp")["cache"]
        taken: dict[str, list[float]] = {name: [] for name in paths}
        seconds = dict.fromkeys(paths, 0.0)
        for block in range(BLOCKS):
            for name in list(paths)[:: 1 if block % 2 else -1]:
                began = time.perf_counter()
                taken[name] += _ask(port, paths[name], requests // BLOCKS, seed=block)
                seconds[name] += time.perf_counter() - began
        found: dict[str, Any] = {
            name: {**_figures(taken[name]), "rate": len(taken[name]) / seconds[name]} for name in paths
        }
        hits, loads = (_get(port, "/cold/v1/models/gdp")["cache"][name] - before[name] for name in ("hits", "loads"))
        found["hits"] = hits / (hits + loads)
        found["moved"] = _move(store, port, paths["umbel, three cached"])
    return found


def _model(factor: float) -> Any:
    """A model whose class travels with it."""

    class Mean:
        def predict(self, inputs: list[float]) -> list[float]:
            return [factor * sum(inputs) / len(inputs)]

    return Mean()


def _register(folder: Path) -> tuple[str, dict[str, Any]]:
    """A model of two versions."""
    store = umbel.open_store(str(folder))
    models: dict[str, Any] = {}
    for version in (1, 2):
        models = {group: _model(version * (n + 1)) for n, group in enumerate(GROUPS)}
        made = dict(models)

        def fit(config: dict[str, Any], made: dict[str, Any] = made) -> umbel.Result:
            return umbel.Result({"mae": 1.0}, model=made[config["country"]])

        space = {"x": [version]}
        sweep = umbel.sweep(fit, space=space, over={"country": GROUPS}, trials=1, metric="mae", mode="min")
        run = umbel.run(sweep, store=store.url, executor="inline", progress="quiet", fresh=True)
        store.registry.register(run, model="gdp", inputs=INPUTS)
    store.registry.model("gdp").set_alias("champion", 1)
    return store.url, models


def _by_hand(models: dict[str, Any]) -> Any:
    from starlette.requests import Request

    class ByHand:
        def __init__(self) -> None:
            self.models = models

        async def __call__(self, request: Request) -> dict[str, Any]:
            body = await request.json()
            group = request.url.path.rpartition("/")[2].partition(":")[0]
            return {"outputs": self.models[group].predict(body["inputs"])}

    return _deployed(ByHand).bind()


def _by_hand_cached(files: Path) -> Any:
    """Three models a replica, by Serve's own multiplexing."""
    from ray import serve
    from starlette.requests import Request

    class ByHand:
        @serve.multiplexed(max_num_models_per_replica=3)  # type: ignore[untyped-decorator]
        async def model(self, group: str) -> Any:
            return pickle.loads((files / group).read_bytes())

        async def __call__(self, request: Request) -> dict[str, Any]:
            body = await request.json()
            model = await self.model(serve.get_multiplexed_model_id())
            return {"outputs": model.predict(body["inputs"])}

    return _deployed(ByHand).bind()


def _deployed(app: type) -> Any:
    from ray import serve

    return serve.deployment(
        app,
        max_ongoing_requests=100,
        max_queued_requests=200,
        ray_actor_options={"num_cpus": 0.1},
        logging_config={"enable_access_log": False},
    )


def _ask(port: int, path: str, requests: int, *, seed: int = 0, everyone: bool = False) -> list[float]:
    """Seconds of each of some requests."""
    times: list[float] = []

    def call(caller: int) -> None:
        random = np.random.default_rng([seed, caller])
        weights = np.arange(1, len(GROUPS) + 1, dtype=float) ** -EXPONENT
        chosen = random.choice(len(GROUPS), requests // CALLERS, p=weights / weights.sum())
        if everyone:
            chosen = np.arange(len(GROUPS))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for n in chosen.tolist():
            began = time.perf_counter()
            status, content = _post(connection, path, GROUPS[n])
            times.append(time.perf_counter() - began)
            assert status == 200, content
        connection.close()

    _in_threads([partial(call, caller) for caller in range(CALLERS)])
    return times


def _move(store: str, port: int, path: str) -> dict[str, Any]:
    """Move the champion four times while callers ask; a move is over when they all get the new version's answers."""
    registered = umbel.open_store(store).registry.model("gdp")
    done, statuses, waits = threading.Event(), [], []
    answered: dict[int, object] = {}

    def call(caller: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        n = 0
        while not done.is_set():
            n += 1
            status, content = _post(connection, path, GROUPS[n % len(GROUPS)])
            statuses.append(status)
            if status == 200:
                answered[caller] = json.loads(content)["version"]
        connection.close()

    def move() -> None:
        try:
            for version in (2, 1, 2, 1):
                registered.set_alias("champion", version)
                began = time.perf_counter()
                while any(answered.get(caller) != version for caller in range(CALLERS)):
                    if time.perf_counter() - began > 30:
                        raise AssertionError(f"version {version} was not served within 30 s")
                    time.sleep(0.01)
                waits.append(time.perf_counter() - began)
        finally:
            done.set()

    _in_threads([move, *(partial(call, caller) for caller in range(CALLERS))])
    return {
        "requests": len(statuses),
        "failed": sum(status != 200 for status in statuses),
        "moves": len(waits),
        "slowest_s": max(waits),
    }


def _in_threads(calls: list[Callable[[], None]]) -> None:
    """Call all at once; raise what one of them raised."""
    raised: list[BaseException] = []

    def run(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def _post(connection: http.client.HTTPConnection, path: str, group: str) -> tuple[int, bytes]:
    """Ask for a group; all apps get the header that Serve's multiplexing reads."""
    headers = {"Content-Type": "application/json", "serve_multiplexed_model_id": group}
    connection.request("POST", f"{path}/{group}:predict", json.dumps({"inputs": INPUTS}), headers)
    reply = connection.getresponse()
    return reply.status, reply.read()


def _get(port: int, path: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    found = json.loads(connection.getresponse().read())
    connection.close()
    return found


def _figures(times: list[float]) -> dict[str, float]:
    return {"p50_s": float(np.median(times)), "p99_s": float(np.percentile(times, 99)), "requests": len(times)}
