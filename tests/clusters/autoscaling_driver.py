"""Run by `test_autoscaling.py` in namespaces of its own: prints as JSON what happened on a cluster that scales."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

import umbel
from tests.clusters.fake_autoscaling import FakeAutoscalingCluster, node_type


def worker_nodes() -> list[dict[str, Any]]:
    """The nodes besides the head that are alive."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]


def wait_until(what: str, condition: Callable[[], bool], timeout_s: float) -> None:
    """Poll until a condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        threading.Event().wait(0.2)


@contextmanager
def watching() -> Iterator[list[int]]:
    """How many worker nodes there are, several times a second."""
    seen: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.25):
            seen.append(len(worker_nodes()))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def slow(config: dict[str, Any]) -> float:
    time.sleep(0.15)
    return float(config["x"])


@umbel.task(cpus=1)
def prepare(number: int) -> int:
    return number + 1


@umbel.task(cpus=0, gpus=1)
def train(number: int) -> tuple[int, str]:
    return number * 10, os.environ.get("CUDA_VISIBLE_DEVICES", "")


@umbel.task(cpus=64)
def huge() -> int:
    return 0


def sweep(trials: int) -> umbel.Sweep:
    return umbel.sweep(slow, space={"x": list(range(trials))}, search="grid", metric="m", name="slow")


def run(target: Any, name: str, **options: Any) -> umbel.Run:
    return umbel.run(target, store="store", name=name, address="auto", progress=False, **options)


def lose_a_node() -> None:
    """End one worker node's raylet, as if its machine had gone."""
    victim = worker_nodes()[0]["NodeID"]
    lines = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    for line in lines:
        if "raylet/raylet " in line and f"--node_id={victim}" in line:
            os.kill(int(line.split()[0]), signal.SIGKILL)
            return
    raise AssertionError("the raylet was not found")


def main() -> None:
    """All scenarios on one cluster, one after another."""
    types = {"cpu": node_type({"CPU": 1}, 2), "gpu": node_type({"CPU": 1, "GPU": 1}, 1)}
    cluster = FakeAutoscalingCluster(head_resources={"CPU": 0}, worker_node_types=types)
    cluster.start()
    ray.init("auto", logging_level="ERROR", log_to_driver=False)
    told: dict[str, Any] = {"nodes_before": len(worker_nodes())}

    with watching() as seen:
        first = run(sweep(120), "scale")
    told["most_nodes"] = max(seen)
    told["scale_rows"] = first.trials().num_rows
    told["scale_workers"] = len(set(first.trials()["worker"].to_pylist()))
    wait_until("back to no nodes", lambda: not worker_nodes(), 40)

    together: list[umbel.Run] = []

    def share(name: str) -> None:
        together.append(run(sweep(100), name, fresh=True, share=umbel.Share(name)))

    with watching() as seen:
        threads = [threading.Thread(target=share, args=(name,)) for name in ("ada", "bo")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
    told["shared_nodes"] = max(seen)
    told["shared_rows"] = [each.trials().num_rows for each in together]

    models = train.map(prepare.map([1, 2, 3]))
    told["gpu_values"] = run(models, "gpu").value(models)

    ended: list[umbel.Run] = []
    thread = threading.Thread(target=lambda: ended.append(run(sweep(150), "loss")))
    thread.start()
    segments = Path("store/runs/loss/trials/slow")
    wait_until("some trials are durable", lambda: any(segments.glob("*.parquet")), 60)
    lose_a_node()
    thread.join(90)
    trials = ended[0].trials()
    told["loss_trials"] = trials["trial"].to_pylist() == list(range(150))
    told["loss_statuses"] = sorted(set(trials["status"].to_pylist()))
    told["loss_attempts"] = sorted(set(trials["attempt"].to_pylist()))

    began = time.monotonic()
    try:
        run(huge.bind(), "huge")
    except umbel.ExecutorError as error:
        told["huge"] = str(error)
    told["huge_s"] = time.monotonic() - began
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
