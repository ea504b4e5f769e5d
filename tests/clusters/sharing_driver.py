"""What `test_sharing` starts on a cluster: drivers whose trials say when they ran, and one that looks at the broker.

``run FOLDER ADDRESS NAME TRIALS PACE SHARE`` connects, waits for ``FOLDER/NAME.go``, and runs a sweep;
``FOLDER/NAME.called`` holds the time at which it did, ``FOLDER/NAME.log`` when each trial began and ended.
``control ADDRESS`` answers each line of its input with a line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import GetTimeoutError, RayActorError

import umbel
from umbel.runtime.executors.ray_cluster import connect
from umbel.runtime.sharing.broker import find_broker


@umbel.task
def trial(config: dict[str, Any]) -> Any:
    begun = time.time()
    time.sleep(config["pace_s"])
    descriptor = os.open(config["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{begun} {time.time()}\n".encode())
    finally:
        os.close(descriptor)
    return config["x"]


def run(folder: Path, address: str, name: str, trials: int, pace_s: float, share: str) -> None:
    connect(address)
    (folder / f"{name}.ready").touch()
    while not (folder / f"{name}.go").exists():
        time.sleep(0.01)
    (folder / f"{name}.called").write_text(str(time.time()))
    sweep = umbel.sweep(
        trial,
        space={"x": tune.uniform(0, 1), "pace_s": pace_s, "log": str(folder / f"{name}.log")},
        trials=trials,
        metric="loss",
        name="search",
    )
    umbel.run(sweep, store=str(folder / "store"), name=name, progress="plain", share=umbel.Share.parse(share))


def control(address: str) -> None:
    connect(address)
    print("ready", flush=True)
    for line in sys.stdin:
        broker, answer = find_broker(), None
        match line.strip():
            case "view":
                with suppress(RayActorError, GetTimeoutError):  # it is being started again
                    answer = ray.get(broker.view.remote(), timeout=10) if broker else None
            case "process":  # the broker's, and what is in its environment
                with suppress(RayActorError, GetTimeoutError):
                    answer = ray.get(broker.__ray_call__.remote(lambda _: (os.getpid(), dict(os.environ))), timeout=10)
            case "crash":
                ray.kill(broker, no_restart=False)
            case "end":
                ray.kill(broker, no_restart=True)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "control":
        control(sys.argv[2])
    else:
        run(Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]), float(sys.argv[6]), sys.argv[7])
