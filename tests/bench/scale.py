"""Where do the figures in `docs/scale.md` come from? From here, by simulation; every line follows from its seeds.

python -m tests.bench.scale stragglers   # makespan and wasted work by factor: about two minutes
python -m tests.bench.scale machines     # up to 10,000 machines, at durations that press the driver: ten minutes
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from math import inf
from statistics import mean

from umbel.scheduler import sharing
from umbel.scheduler.graph import NodeId
from umbel.scheduler.simulation.bounds import in_order_s
from umbel.scheduler.simulation.setup import MachineKind, one_sweep
from umbel.scheduler.simulation.simulator import simulate

SLOTS = 8
SEEDS = (0, 1, 2)
#: What the clusters are like: a name, the share of slow machines, their speed, and the spread of durations.
CLUSTERS = (
    ("no machine slow, sigma 0.3", 0.0, 1.0, 0.3),
    ("5 % at a quarter of the speed, sigma 0.3", 0.05, 0.25, 0.3),
    ("5 % at a tenth of the speed, sigma 0.3", 0.05, 0.1, 0.3),
    ("no machine slow, sigma 1", 0.0, 1.0, 1.0),
    ("5 % at a quarter of the speed, sigma 1", 0.05, 0.25, 1.0),
)
FACTORS = (1.25, 1.5, 2.0, 3.0, inf)
#: Machines, trials and mean seconds of a trial.
SIZES = (
    (100, 100_000, 30.0),
    (1_000, 1_000_000, 30.0),
    (1_000, 400_000, 15.0),
    (1_000, 400_000, 10.0),
    (1_000, 400_000, 5.0),
    (3_000, 480_000, 30.0),
    (10_000, 400_000, 30.0),
    (10_000, 4_000_000, 30.0),
    (10_000, 400_000, 120.0),
    (10_000, 400_000, 300.0),
)


def stragglers() -> Iterator[str]:
    """20,000 trials of 30 s on 100 machines, as rows of a table: makespan over the lower bound, and wasted work."""
    for name, share, speed, sigma in CLUSTERS:
        machines = (MachineKind({"CPU": float(SLOTS)}, 100, 100, slow_share=share, slow_speed=speed),)
        for factor in FACTORS:
            sharing.STRAGGLER_FACTOR = factor
            outcomes = [
                simulate(one_sweep(20_000, machines, sigma=sigma, seed=seed, machine_losses_per_hour=0.0))
                for seed in SEEDS
            ]
            ratio = mean(outcome.ratio for outcome in outcomes)
            wasted = mean(outcome.lost_core_s / outcome.useful_core_s for outcome in outcomes)
            twice = mean(outcome.duplicated for outcome in outcomes)
            shown = "off" if factor == inf else f"{factor:g}"
            yield f"| {name} | {shown} | {ratio:.3f} | {wasted:.2%} | {twice:.0f} |"


def machines() -> Iterator[str]:
    """One sweep on ever more machines, as rows of a table: what the driver has to do, and what it costs to simulate."""
    for count, trials, mean_s in SIZES:
        scenario = one_sweep(trials, count, SLOTS, mean_s=mean_s)
        began_s = time.process_time()
        outcome = simulate(scenario)
        taken_s = time.process_time() - began_s
        ideal_s = in_order_s(scenario.seconds[NodeId(0)], count * SLOTS)
        seconds, mb = outcome.makespan_s, 1e6
        shown = (
            f"{count:,}",
            f"{trials:,}",
            f"{mean_s:g} s",
            f"{seconds:,.0f} s",
            f"{seconds / ideal_s:.3f}",
            f"{outcome.driver_busy_s / seconds:.0%}",
            f"{outcome.messages / seconds:,.0f}",
            f"{max(outcome.messages_per_s[:-1], default=0.0):,.0f}",
            f"{outcome.bytes / seconds / mb:.2f}",
            f"{max(outcome.bytes_per_s[:-1], default=0.0) / mb:.2f}",
            f"{taken_s / outcome.leases * 1e6:.0f} µs",
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB",
        )
        yield f"| {' | '.join(shown)} |"


if __name__ == "__main__":
    for asked in sys.argv[1:] or ("stragglers", "machines"):
        for row in {"stragglers": stragglers, "machines": machines}[asked]():
            print(row, flush=True)
