"""`python -m tests.bench`: run the arms one after another, and say whether what is promised holds.

Exit code 0: all that was judged holds; 1: something does not, or an arm could not be measured; 2: a wrong
option; 130: Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.bench import (
    adaptive,
    answers,
    cpu10ms,
    fused,
    million,
    noop,
    pipeline,
    pruning,
    reads,
    requests,
    resume,
    serve,
    sharing,
    simulator,
    startup,
    transfer,
    values,
)
from tests.bench.isolation import Isolated, PartError
from tests.bench.machine import ROOT, describe_machine
from tests.bench.measurement import ArmResult, Measurement, failed
from tests.bench.report import document, print_arm, print_table, write

Measure = Callable[[Isolated, int], tuple[list[Measurement], dict[str, Any]]]

#: By name: what measures it, and for how long at most, in seconds.
ARMS: dict[str, tuple[Measure, float]] = {
    "startup": (startup.measure, startup.LIMIT_S),
    "noop": (noop.measure, noop.LIMIT_S),
    "million": (million.measure, million.LIMIT_S),
    "resume": (resume.measure, resume.LIMIT_S),
    "answers": (answers.measure, answers.LIMIT_S),
    "pipeline": (pipeline.measure, pipeline.LIMIT_S),
    "values": (values.measure, values.LIMIT_S),
    "simulator": (simulator.measure, simulator.LIMIT_S),
    "requests": (requests.measure, requests.LIMIT_S),
    "reads": (reads.measure, reads.LIMIT_S),
    "adaptive": (adaptive.measure, adaptive.LIMIT_S),
    "pruning": (pruning.measure, pruning.LIMIT_S),
    "transfer": (transfer.measure, transfer.LIMIT_S),
    "fused": (fused.measure, fused.LIMIT_S),
    "serve": (serve.measure, serve.LIMIT_S),
    "sharing": (sharing.measure, sharing.LIMIT_S),
    "cpu10ms": (cpu10ms.measure, cpu10ms.LIMIT_S),
}
#: What sizes are divided by for a quick look.
QUICK = 10
#: Columns of the output where there is no terminal to tell.
WIDTH = 140


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the arms that are asked for; returns the exit code."""
    options = _parse(arguments)
    judged = not options.quick
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    taken, machine = datetime.now(UTC), describe_machine()
    results = []
    for name in options.only:
        console.print(f"{name}: measuring…", style="dim", highlight=False)
        results.append(_measure(name, QUICK if options.quick else 1))
        print_arm(console, results[-1], judged=judged)
    print_table(console, results, machine, judged=judged)
    path = write(document(results, machine, taken, judged=judged), options.results, taken)
    console.print(f"kept in {path}", highlight=False, soft_wrap=True)
    return 1 if failed(results, judged=judged) else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Measure the numbers that Umbel promises."
    )
    parser.add_argument("--only", type=_arms, default=list(ARMS), metavar="ARM,…", help=f"of: {', '.join(ARMS)}")
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes; nothing is judged")
    parser.add_argument("--results", type=Path, default=ROOT / "bench-results", help="where the JSON goes")
    return parser.parse_args(arguments)


def _arms(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in ARMS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"no such arm: {', '.join(unknown) or 'none named'}; there are {', '.join(ARMS)}"
        )
    return names


def _measure(name: str, divisor: int) -> ArmResult:
    measure, limit_s = ARMS[name]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="umbel-bench-") as folder:
        isolated = Isolated(limit_s, Path(folder))
        try:
            measurements, details = measure(isolated, divisor)
        except PartError as error:
            return ArmResult(name, [], time.monotonic() - began, isolated.others, error=str(error))
    return ArmResult(name, measurements, time.monotonic() - began, isolated.others, details=details)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
