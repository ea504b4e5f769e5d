"""What is gained by training many small networks as one?

Measured: 200 Adam steps of a network 8→16→1 (tanh), made afresh for each trial with its own seed and learning rate, on
48 rows, all of them in each step: a country of `examples/gdp.py` has 48.9 years to train on, on average.

- Trials a second of 1,000 trials by `umbel.torch.fit_many`, against the same training one trial at a time by plain
  PyTorch, both on one thread, by processor time, in turns; the best of three rounds of each, so that others on the
  machine take little from either. Must be at least 40 times as many.
- The same with ``compile=True``, the second time in a process: the first time takes about half a minute more.
- The largest difference between a lone trial's loss and its loss among the others, relative. At most 1e-3 (float32).
- Memory a trial: growth of the process's peak from a batch of 10 to one of 1,000.
- The same through a sweep: `umbel.fused` on two workers, against a sweep of the same on the same workers, one trial at
  a time by plain PyTorch. By the processor time of the median trial it must be at least 40 times as fast. Rates from
  the first trial's start to the last one's end are told beside it, and the time of Ray Tune for 200 such trials.
- Where there is a CUDA device: the same there, in batches of 1,000 and 20,000, and the share of time in which the
  device ran kernels. Nothing is promised about it.
"""

from __future__ import annotations

import resource
import time
from typing import Any

from tests.bench.isolation import Isolated
from tests.bench.measurement import Measurement, at_least, at_most

__all__ = ["LIMIT_S", "measure", "network", "some_data", "train_alone"]

LIMIT_S = 420.0
TRIALS = 1000
STEPS = 200
ROWS, INPUTS, HIDDEN = 48, 8, 16
#: Rounds, and trials that are trained alone in each.
ROUNDS, ALONE = 3, 6
#: Trials of the sweeps: fused, one at a time, and by Ray Tune.
SWEPT, SWEPT_ALONE, TUNED = 8000, 80, 200
CUDA_BATCHES = (1000, 20_000)


def measure(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, Any]]:
    """The arm; ``divisor`` makes it smaller: fewer steps, as the size of a batch is what it is about."""
    steps = STEPS // divisor
    found = isolated(drive, trials=TRIALS, steps=steps)
    compiled = isolated(drive_compiled, trials=TRIALS, steps=steps)
    memory = isolated(drive_memory, trials=TRIALS)
    device = isolated(drive_cuda, steps=steps)
    from tests.bench.fused_sweep import drive_sweeps  # PyTorch takes its time

    swept = isolated(
        drive_sweeps,
        fused=SWEPT,
        one_by_one=SWEPT_ALONE,
        tune_trials=TUNED // divisor,
        steps=steps,
        store=str(isolated.folder / "store"),
    )
    fused_s, alone_s = found["fused_s"] / TRIALS, found["alone_s"]
    measurements = [
        Measurement(
            f"{TRIALS:,} trials as one: trials/s against one at a time, one thread",
            alone_s / fused_s,
            "x",
            at_least(40.0),
            f"{1 / fused_s:,.0f} against {1 / alone_s:,.1f} trials/s; {alone_s * 1e3:.0f} and {fused_s * 1e3:.2f} ms",
        ),
        Measurement(
            "the same, compiled",
            alone_s / (compiled["fused_s"] / TRIALS),
            "x",
            None,
            f"{TRIALS / compiled['fused_s']:,.0f} trials/s; the first time takes {compiled['first_wall_s']:.0f} s",
        ),
        Measurement(
            "largest relative difference of a trial's loss",
            found["difference"],
            "x",
            at_most(1e-3),
            f"of {ROUNDS * ALONE} trials, float32, after {steps} steps",
        ),
        Measurement(
            "memory of a trial in the batch",
            memory["bytes"] / 1e3,
            "kB",
            None,
            f"peak {memory['peak'] / 1e6:,.0f} MB, of which PyTorch and the start {memory['start'] / 1e6:,.0f} MB",
        ),
    ]
    measurements += [
        Measurement(
            "in a sweep: processor time of a trial alone against one of a batch",
            swept["alone_cpu_s"] / swept["fused_cpu_s"],
            "x",
            at_least(40.0),
            f"{swept['alone_cpu_s'] * 1e3:.0f} and {swept['fused_cpu_s'] * 1e3:.2f} ms, medians of {SWEPT_ALONE} and "
            f"{SWEPT:,} trials, in batches of up to {swept['fused_batch']:,}",
        ),
        Measurement(
            "in a sweep: trials/s against one at a time, two workers each",
            swept["fused_rate"] / swept["alone_rate"],
            "x",
            None,
            f"{swept['fused_rate']:,.0f} against {swept['alone_rate']:,.1f} trials/s; the run as a whole, with the "
            f"start of workers, {swept['fused_run_s']:.1f} s for {SWEPT:,}",
        ),
        Measurement(
            "Ray Tune's time for 200 of these trials, one at a time",
            swept["tune_s"] * TUNED / max(1, TUNED // divisor),
            "s",
            None,
            f"{TUNED // divisor / swept['tune_s']:.1f} trials/s; fused in a sweep, 200 take "
            f"{TUNED / swept['fused_rate']:.2f} s of {SWEPT:,}",
        ),
    ]
    if device["name"] is None:
        measurements.append(
            Measurement("CUDA devices", 0.0, "objects", None, "nothing was measured on one: none is here")
        )
    for batch in device["batches"]:
        measurements.append(
            Measurement(
                f"on {device['name']}, {batch['trials']:,} trials as one: trials/s against one at a time here",
                alone_s * batch["trials"] / batch["wall_s"],
                "x",
                None,
                f"{batch['trials'] / batch['wall_s']:,.0f} trials/s; in kernels {batch['busy']:.0%} of the time; "
                f"{batch['bytes'] / batch['trials'] / 1e3:,.0f} kB a trial",
            )
        )
    return measurements, {"cpu": found, "compiled": compiled, "memory": memory, "cuda": device}


def drive(trials: int, steps: int) -> dict[str, Any]:
    """Lone trials and fused ones in turns, in one process."""
    import torch

    from umbel.torch import fit_many

    torch.set_num_threads(1)
    data, configs = some_data(), _configs(trials)
    train_alone(data, configs[0], steps)  # warm
    fit_many(network, data, configs[:10], "mse", steps=5, device="cpu")
    fused, alone, differences = [], [], []
    for part in range(ROUNDS):
        few = list(range(part, trials, trials // ALONE))[:ALONE]
        began_s = time.process_time()
        losses = [train_alone(data, configs[trial], steps) for trial in few]
        alone.append((time.process_time() - began_s) / ALONE)
        began_s = time.process_time()
        fitted = fit_many(network, data, configs, "mse", steps=steps, device="cpu")
        fused.append(time.process_time() - began_s)
        differences += [abs(float(fitted.loss[trial]) / loss - 1) for trial, loss in zip(few, losses, strict=True)]
    return {
        "fused_s": min(fused),
        "alone_s": min(alone),
        "all_fused_s": fused,
        "all_alone_s": alone,
        "difference": max(differences),
    }


def drive_compiled(trials: int, steps: int) -> dict[str, Any]:
    """Fused and compiled, again and again in one process."""
    import torch

    from umbel.torch import fit_many

    torch.set_num_threads(1)
    wall_s, fused = [], []
    for _ in range(ROUNDS + 1):
        began_s, began_wall_s = time.process_time(), time.perf_counter()
        fit_many(network, some_data(), _configs(trials), "mse", steps=steps, device="cpu", compile=True)
        fused.append(time.process_time() - began_s)
        wall_s.append(time.perf_counter() - began_wall_s)
    return {"first_wall_s": wall_s[0], "fused_s": min(fused[1:]), "all_fused_s": fused}


def drive_memory(trials: int) -> dict[str, Any]:
    """How the peak grows with the batch."""
    import torch

    from umbel.torch import fit_many

    torch.set_num_threads(1)
    peaks = []
    for count in (10, trials):
        fit_many(network, some_data(), _configs(count), "mse", steps=5, device="cpu")
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return {"start": peaks[0], "peak": peaks[1], "bytes": (peaks[1] - peaks[0]) / (trials - 10)}


def drive_cuda(steps: int) -> dict[str, Any]:
    """The same on a CUDA device, if there is one."""
    import torch

    from umbel.torch import fit_many

    if not torch.cuda.is_available():
        return {"name": None, "batches": []}
    data, batches = some_data(), []
    fit_many(network, data, _configs(10), "mse", steps=5, device="cuda")
    for trials in CUDA_BATCHES:
        configs = _configs(trials)
        torch.cuda.reset_peak_memory_stats()
        began_s = time.perf_counter()
        fit_many(network, data, configs, "mse", steps=steps, device="cuda")
        wall_s = time.perf_counter() - began_s
        size = torch.cuda.max_memory_allocated()
        busy = _busy(data, configs, steps)
        batches.append({"trials": trials, "wall_s": wall_s, "bytes": size, "busy": busy})
    return {"name": torch.cuda.get_device_name(), "batches": batches}


def _busy(data: Any, configs: list[dict[str, Any]], steps: int) -> float:
    """The share of the steps' time in which the device ran kernels."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from umbel.torch import fit_many

    ends: list[float] = []

    def note(step: int, trials: Any, losses: Any) -> None:
        ends.append(time.perf_counter())

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        fit_many(network, data, configs, "mse", steps=steps, device="cuda", stop=note, check_every=steps // 2)
        torch.cuda.synchronize()
    kernels_s: float = sum(event.self_device_time_total for event in seen.key_averages()) / 1e6
    return kernels_s / (2 * (ends[-1] - ends[0]))


def some_data() -> Any:
    import torch

    made = torch.Generator().manual_seed(7)
    inputs = torch.randn(ROWS, INPUTS, generator=made)
    return inputs, torch.sin(inputs.sum(1, keepdim=True)) + 0.1 * torch.randn(ROWS, 1, generator=made)


def _configs(trials: int) -> list[dict[str, Any]]:
    return [{"seed": i, "lr": 1e-3 * 10 ** (i / trials)} for i in range(trials)]


def network(config: dict[str, Any]) -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))


def train_alone(data: Any, config: dict[str, Any], steps: int) -> float:
    """One trial by plain PyTorch."""
    import torch

    inputs, target = data
    torch.manual_seed(config["seed"])
    module = network(config)
    optimizer = torch.optim.Adam(module.parameters(), lr=config["lr"])
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(module(inputs), target).backward()
        optimizer.step()
    with torch.no_grad():
        return float(torch.nn.functional.mse_loss(module(inputs), target))
