"""May the groups of a sweep learn from one another, and share a budget? Checks of `umbel.sweep`'s arguments.

What does not fit together is said when the graph is built, before anything runs. It must not know how either is done.
"""

from __future__ import annotations

from collections.abc import Sequence

from umbel.scheduler.errors import UsageError
from umbel.scheduler.search.pareto import Objective, in_words

__all__ = ["check_budget", "check_one_metric", "check_transfer"]

#: Of a sweep with a budget: the most trials that a group may get, and the least, if nobody says.
MOST_TRIALS, FLOOR = 1000, 10


def check_one_metric(objectives: Sequence[Objective]) -> None:
    """Check that trials are judged by one metric.

    Raises:
        UsageError: they are judged by several.
    """
    if len(objectives) > 1:
        raise UsageError(
            "groups that learn from one another, or share a budget, are searched by one metric",
            got=in_words(objectives),
            expected="one metric",
            hint="leave transfer and budget out, or weigh the metrics against each other in one",
        )


def check_budget(
    budget: object, floor: object, trials: int | None, groups: int | None, search: object
) -> tuple[int, int]:
    """The most trials that a group may get, and how many it gets first.

    Args:
        budget: of all groups together.
        floor: how many each gets first; None: `FLOOR`.
        trials: the most that one may get; None: `MOST_TRIALS`.
        groups: how many there are; None: only the run reveals it.
        search: the search.

    Raises:
        UsageError: they are no numbers of trials, or don't fit together.
    """
    if budget is None:
        raise UsageError(
            "a floor is a group's first share of a budget, and there is no budget",
            got=f"floor={floor!r} without budget",
            expected="both, or neither",
            hint="budget=20_000, floor=10 for example; the same number of trials for each group is trials=",
        )
    for what, value in (("budget", budget), ("floor", floor)):
        if not (value is None and what == "floor") and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            raise UsageError(
                f"the sweep's {what} is not a number of trials",
                got=f"{what}={value!r}",
                expected="a whole number ≥ 1",
                hint="budget=20_000, floor=10 for example; a limit on time or cost is given to umbel.run",
            )
    assert isinstance(budget, int)
    if isinstance(search, str) and search in ("grid", "tune"):
        raise UsageError(
            "a grid is tried whole, in each group alike",
            got=f"budget={budget} with search={search!r}",
            expected='search="random", or one that builds upon results, as "tpe"',
            hint="leave budget out",
        )
    most = MOST_TRIALS if trials is None else trials
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise UsageError("trials is no count", got=f"trials={trials!r}", expected="a whole number ≥ 1, or None")
    least = floor if isinstance(floor, int) else min(FLOOR, most)
    if least > most:
        raise UsageError(
            "a group's floor is more than it may get at most", got=f"floor={least}, trials={most}", expected="no more"
        )
    if groups is not None and budget < least * groups:
        raise UsageError(
            "the budget does not suffice for the floor of each group",
            got=f"budget={budget:,} for {groups:,} groups with floor={least:,}",
            expected=f"a budget ≥ {least * groups:,}",
            hint=f"raise the budget, or lower the floor to {budget // groups}" if budget >= groups else None,
        )
    if groups is not None and budget > most * groups:
        raise UsageError(
            "the budget is more than the groups may get together",
            got=f"budget={budget:,} for {groups:,} groups of at most {most:,} trials",
            expected=f"a budget ≤ {most * groups:,}",
            hint="raise trials=, the most that one group may get",
        )
    return most, least


def check_transfer(transfer: object, search: object, groups: Sequence[object] | None, transfer_from: object) -> bool:
    """Whether groups learn from one another; if so, check that there is somebody to learn from, and something to learn.

    Raises:
        UsageError: ``transfer`` is neither True nor False, the search tries a grid, or there is one group only and no
            earlier run.
    """
    if not isinstance(transfer, bool):
        raise UsageError("transfer is neither True nor False", got=f"transfer={transfer!r}", expected="True or False")
    if not transfer and transfer_from is None:
        return False
    if isinstance(search, str) and search in ("grid", "tune"):
        raise UsageError(
            "a grid is tried as it is: groups can't learn from one another which of it to try",
            got=f"transfer=True with search={search!r}",
            expected='search="random", or one that builds upon results, as "tpe"',
            hint="leave transfer out, or give the space as ranges and choices",
        )
    if groups is not None and len(groups) < 2 and transfer_from is None:
        raise UsageError(
            "there is one group only, and nobody for it to learn from",
            got="transfer=True",
            expected="several groups in over=, or an earlier run as transfer_from=",
            hint="leave transfer out",
        )
    return True
