"""Does the engine keep 8,000 slots busy, and is that found out quickly? A million trials, simulated.

Measured: 1,000,000 trials on 1,000 machines of 8 slots, of which 1 % an hour are lost and replaced, with log-normal
durations of 30 s in the mean. The spread, sigma 0.3, is four times that of the trials of `examples/gdp.py` (0.07); the
longest trial takes 3.9 times the mean. It is chosen so that 1.03 can be reached at all: with 125 trials a slot, and no
way to know a duration before a trial has ended, even a scheduler that loses no time ends 1.6 to 1.9 % after the bound
at 0.3, and 3.4 to 4.4 % after it at 0.5. What a heavier tail gives is told beside it, against such a scheduler.

- Makespan / lower bound (work / slots, or the longest chain). Must be at most 1.03.
- Processor time of the simulation, which has one thread: what it would take on a core of its own. At most 90 s.
- One seed, one history: a smaller scenario with more trouble, simulated in two processes.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from tests.bench.isolation import Isolated
from tests.bench.measurement import Measurement, at_most
from umbel.scheduler.graph import NodeId
from umbel.scheduler.simulation.bounds import in_order_s
from umbel.scheduler.simulation.setup import Faults, MachineKind, Network, one_sweep
from umbel.scheduler.simulation.simulator import simulate

__all__ = ["LIMIT_S", "measure"]

LIMIT_S = 600.0
TRIALS = 1_000_000
MACHINES = 1000
SLOTS = 8
MEAN_S = 30.0
SIGMA = 0.3
#: Spread of durations that are told beside it: the longest of 100,000 takes some 40 times the mean.
HEAVY_SIGMA = 1.0


def measure(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, Any]]:
    """The arm; ``divisor`` makes it smaller: fewer trials on fewer machines."""
    trials, machines = TRIALS // divisor, MACHINES // divisor
    sweep = isolated(drive, trials=trials, machines=machines, sigma=SIGMA)
    heavy = isolated(drive, trials=trials // 10, machines=machines // 10, sigma=HEAVY_SIGMA)
    digests = [isolated(trouble, seed=seed)["digest"] for seed in (1, 1, 2)]
    return [
        Measurement(
            f"{trials:,} trials on {machines:,} × {SLOTS} slots: makespan / lower bound",
            sweep["makespan_s"] / sweep["lower_bound_s"],
            "x",
            at_most(1.03),
            f"{sweep['makespan_s']:,.0f} s, at least {sweep['lower_bound_s']:,.0f} s; "
            f"{sweep['machines_lost']} machines lost, {sweep['run_again']} trials run again",
        ),
        Measurement(
            "the same / one that loses no time, but knows no duration beforehand",
            sweep["makespan_s"] / sweep["in_order_s"],
            "x",
            None,
            f"which takes {sweep['in_order_s'] / sweep['lower_bound_s']:.3f} × the bound",
        ),
        Measurement(
            "simulating it, processor time on one core",
            sweep["cpu_s"],
            "s",
            at_most(90.0),
            f"{sweep['wall_s']:.1f} s by the clock; {sweep['cpu_s'] / sweep['leases'] * 1e6:.0f} µs a lease",
        ),
        Measurement(
            f"a heavier tail (sigma {HEAVY_SIGMA:g}): makespan / the same one",
            heavy["makespan_s"] / heavy["in_order_s"],
            "x",
            None,
            f"{trials // 10:,} trials on {machines // 10:,} machines; "
            f"{heavy['makespan_s'] / heavy['lower_bound_s']:.3f} × the bound",
        ),
        Measurement(
            "histories that one seed gives in two processes",
            len(set(digests[:2])),
            "objects",
            at_most(1),
            f"{digests[0][:8]} and {digests[1][:8]}; another seed gives {digests[2][:8]}",
        ),
    ], {"sweep": sweep, "heavy": heavy, "digests": digests}


def drive(trials: int, machines: int, sigma: float) -> dict[str, Any]:
    """Simulate one sweep."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    scenario = one_sweep(trials, machines, SLOTS, mean_s=MEAN_S, sigma=sigma)
    outcome = simulate(scenario)
    cpu_s, wall_s = time.process_time() - began_cpu_s, time.perf_counter() - began_s
    figures = {name: getattr(outcome, name) for name in outcome.__slots__}
    return {
        **{name: value for name, value in figures.items() if not isinstance(value, tuple)},
        "in_order_s": in_order_s(scenario.seconds[NodeId(0)], machines * SLOTS),
        "cpu_s": cpu_s,
        "wall_s": wall_s,
    }


def trouble(seed: int) -> dict[str, Any]:
    """Simulate a small sweep in which all kinds of things go wrong."""
    machines = (MachineKind({"CPU": 8.0}, initial=10, most=20, slow_share=0.2),)
    scenario = one_sweep(20_000, machines, mean_s=5.0, sigma=HEAVY_SIGMA, seed=seed)
    faults = Faults(machine_losses_per_hour=2.0, crashes_per_hour=5.0, poison={NodeId(0): [17]})
    return {"digest": simulate(replace(scenario, faults=faults, network=Network(doubled=0.1, late=0.1))).digest}
