"""The program that tests of faults start, kill and start again: one sweep, whose trials do what files tell them.

``FOLDER/do/<trial>`` holds what the trial does instead of just returning; every trial adds a line to ``FOLDER/started``
when it begins and to ``FOLDER/ended`` when it is about to return.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import time
from pathlib import Path
from typing import Any

from ray import tune

import umbel


def note(file: Path, text: str) -> None:
    """Add a line, whole however many processes do so."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, text.encode() + b"\n")
    finally:
        os.close(descriptor)


def act(folder: Path, order: str) -> None:
    """Do what a test has ordered."""
    match order:
        case "wait":
            while not (folder / "go").exists():
                time.sleep(0.01)
        case "sleep":
            while True:
                time.sleep(0.1)
        case "hold":  # a C function that never returns and keeps the interpreter's lock
            ctypes.PyDLL(None).sleep(1000)
        case "exit":
            os._exit(3)
        case "segfault":
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            ctypes.string_at(0)
        case _:
            raise ValueError(f"unknown order {order!r}")


def trial(config: dict[str, Any]) -> umbel.Result:
    folder, this = Path(config["folder"]), umbel.trial()
    note(folder / "started", f"{this.index} {this.attempt} {os.getpid()}")
    order = folder / "do" / str(this.index)
    if order.exists():
        text = order.read_text()
        if text.startswith("once "):
            order.unlink()
        act(folder, text.removeprefix("once "))
    time.sleep(config["pace_s"])
    note(folder / "ended", str(this.index))
    loss = (config["alpha"] - 0.3) ** 2 + this.seed / 2**40
    model = [this.index] * 1000 if config["models"] else None
    return umbel.Result({"loss": loss, "seed": this.seed}, model=model)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("store")
    parser.add_argument("--executor", default="ray")
    parser.add_argument("--address")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--pace", type=float, default=0.0)
    parser.add_argument("--timeout", type=float)
    parser.add_argument("--retries", type=int, default=0)
    parser.add_argument("--retry-on", default="Exception")
    parser.add_argument("--models", action="store_true")
    parser.add_argument("--file-limit", type=int)
    chosen = parser.parse_args()
    if chosen.file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (chosen.file_limit, chosen.file_limit))
    kind = {"Exception": Exception, "TimeoutError": TimeoutError, "ValueError": ValueError}[chosen.retry_on]
    task = umbel.task(timeout_s=chosen.timeout, retries=chosen.retries, retry_on=(kind,))(trial)
    space = {"alpha": tune.uniform(0, 1), "folder": chosen.folder, "pace_s": chosen.pace, "models": chosen.models}
    sweep = umbel.sweep(
        task,
        space=space,
        over={"group": ["a", "b"]},
        trials=chosen.trials // 2,
        metric="loss",
        keep="all",
        name="search",
    )
    umbel.run(
        sweep.best(),
        store=chosen.store,
        name="work",
        executor=chosen.executor,
        address=chosen.address,
        workers=chosen.workers,
        progress="plain",
    )


if __name__ == "__main__":
    main()
