"""Run by `test_chaos.py` in namespaces of its own: a run in which everything is killed that can be, several times.

Prints as JSON what was done in each round, and what was left behind. Its arguments are a seed, and for how many minutes
to begin new rounds (with the next seeds). The runs are left in the folders ``store-<seed>`` and ``undisturbed``.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from tests.clusters.chaos_graph import GROUPS, TRIALS
from tests.clusters.chaos_parts import BROKER, WORKER, Progress, Sitting, kill, left_behind, pids

#: Processors of each of the three nodes; more than there are, since trials sleep.
SLOTS = 2
#: The file to which each trial adds a byte as it begins.
COUNT = Path("begun")
#: Trials that begin at least between two deaths of workers.
TRIALS_PER_KILL = 100
#: Seconds between two deaths of the broker with which the run shares the cluster.
BROKER_DIES_EVERY_S = 8
#: What happens to a run while workers die; in which order is left to chance.
EVENTS = ["driver killed", "driver killed", "driver killed", "node lost", "node drained"]


class Chaos:
    """One round.

    Args:
        cluster: where it takes place.
        seed: decides what happens, in which order, and roughly when.
    """

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._random = random.Random(seed)
        self._store = Path(f"store-{seed}").absolute()
        self._log = Path(f"driver-{seed}.log").absolute()
        self._began = time.monotonic()
        self.told: dict[str, Any] = {
            "seed": seed,
            "store": str(self._store),
            "workers killed": 0,
            "broker killed": 0,
            "events": [],
        }

    def play(self) -> None:
        """Run the graph to its end, whatever happens."""
        progress = Progress(self._store)
        events = self._random.sample(EVENTS, len(EVENTS))
        sitting = self._sit()
        with self._killing_workers():
            for number, event in enumerate(events):
                share = (number + self._random.uniform(0.3, 0.9)) / len(events)
                sitting.reach(progress, share * GROUPS * TRIALS)
                self._note(f"{event} at {progress.durable:,} trials")
                if event == "driver killed":
                    assert sitting.kill()
                    sitting = self._sit()
                else:
                    self._replace_a_node(drain=event == "node drained")
                self.told[event] = self.told.get(event, 0) + 1
            sitting.finish()
        self._note("done")
        self.told["seconds"] = round(time.monotonic() - self._began, 1)

    def _sit(self) -> Sitting:
        return Sitting(self._log, str(self._store), "--address", self._cluster.address)

    def _note(self, what: str) -> None:
        line = f"{time.monotonic() - self._began:6.1f} s: {what}, {self.told['workers killed']} workers killed"
        self.told["events"].append(line)
        print(line, file=sys.stderr, flush=True)

    @contextmanager
    def _killing_workers(self) -> Iterator[None]:
        stop, chance = threading.Event(), random.Random(self._random.random())

        def go_on() -> None:
            second = seen = 0
            while not stop.wait(1.0):
                second += 1
                if second % BROKER_DIES_EVERY_S == 0:
                    self.told["broker killed"] += sum(map(kill, pids(BROKER)))
                victims, begun = pids(WORKER), COUNT.stat().st_size if COUNT.exists() else 0
                # Not faster than trials run: on a machine that has too much to do, nobody would ever get anywhere.
                if victims and begun >= seen + TRIALS_PER_KILL and kill(chance.choice(victims)):
                    self.told["workers killed"] += 1
                    seen = COUNT.stat().st_size

        thread = threading.Thread(target=go_on, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _replace_a_node(self, *, drain: bool) -> None:
        """Take a node away in an instant, with or without a word before, and add another."""
        node = self._random.choice(sorted(self._cluster.worker_nodes, key=lambda each: each.unique_id))
        if drain:
            reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test"]
            which = ["--address", self._cluster.address, "--node-id", node.node_id]
            subprocess.run(
                ["ray", "drain-node", *which, *reason, "--deadline-remaining-seconds", "30"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        self._cluster.remove_node(node, allow_graceful=False)
        self._cluster.add_node(num_cpus=SLOTS)


def main() -> None:
    seed, minutes = int(sys.argv[1]), float(sys.argv[2])
    end = time.monotonic() + 60 * minutes
    Sitting(Path("undisturbed.log"), "undisturbed").finish()
    os.environ.update(
        CHAOS_PACE_S="0.004",
        CHAOS_COUNT=str(COUNT.absolute()),
        RAY_AUTH_MODE="disabled",
        # On a machine that has too much to do a node may answer late and is not dead.
        RAY_health_check_period_ms="1000",
        RAY_health_check_timeout_ms="2000",
        RAY_health_check_failure_threshold="3",
    )
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": SLOTS, "include_dashboard": False})
    cluster.add_node(num_cpus=SLOTS)
    cluster.add_node(num_cpus=SLOTS)
    rounds: list[dict[str, Any]] = []
    while not rounds or time.monotonic() < end:
        print(f"seed {seed}", file=sys.stderr, flush=True)
        chaos = Chaos(cluster, seed)
        chaos.play()
        rounds.append(
            {**chaos.told, "trials begun": COUNT.stat().st_size, "left behind": left_behind(cluster.global_state)}
        )
        COUNT.unlink()
        seed += 1
    cluster.shutdown()
    print(json.dumps(rounds))


if __name__ == "__main__":
    main()
