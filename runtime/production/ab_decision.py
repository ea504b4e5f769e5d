"""What follows from a comparison of two versions, and what forbids that anything follows?

It must not know how the figures that it is given were computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from umbel.runtime.production.ab_result import Arm, Decision, Shares
from umbel.scheduler.statistics.confidence import Difference, chi_square_tail, shares_evidence

__all__ = ["decide", "find_problems", "judge_shares", "p_value"]


def p_value(log_e: float) -> float:
    """The always valid p-value of an e-value, given as its logarithm."""
    return math.exp(-max(0.0, log_e))


def judge_shares(strata: tuple[tuple[float, int, int], ...]) -> Shares | None:
    """Whether units have the shares that they should have.

    Args:
        strata: (share of the challenger among both, units of the champion, of the challenger); none: not known.
    """
    total = sum(first + second for _, first, second in strata)
    if not total:
        return None
    log_e = statistic = 0.0
    for share, first, second in strata:
        log_e += shares_evidence([first, second], [1 - share, share])
        expected = share * (first + second)
        variance = expected * (1 - share)
        statistic += (second - expected) ** 2 / variance if variance else 0.0
    return Shares(
        sum(share * (first + second) for share, first, second in strata) / total,
        sum(second for _, _, second in strata) / total,
        p_value(log_e),
        chi_square_tail(statistic, len(strata)),
    )


def find_problems(arms: tuple[Arm, Arm], shares: Shares | None, outcome_shares: Shares | None) -> list[str]:
    """What forbids any decision."""
    challenger = arms[1]
    problems = []
    if shares is not None and not shares.ok:
        problems.append(
            f"the shares are wrong: {challenger.alias} has {shares.actual:.2%} of the units instead of "
            f"{shares.expected:.2%}, so the arms may differ in more than the version"
        )
    elif outcome_shares is not None and not outcome_shares.ok:
        problems.append(
            f"outcomes are missing unevenly: {challenger.alias} has {outcome_shares.actual:.2%} of those that are "
            f"there instead of {outcome_shares.expected:.2%}"
        )
    if challenger.unusable:
        problems.append(
            f"{challenger.unusable} of the answers of {challenger.alias} can't be compared with their outcomes "
            "(not finite, no number, or of another length); once that is mended, --since (since=) leaves them out"
        )
    return problems


def decide(
    arms: tuple[Arm, Arm],
    problems: Sequence[str],
    found: Difference,
    interval: tuple[float, float],
    least: int,
    gain: float,
    is_paired: bool,
    shares_known: bool,
) -> tuple[Decision, list[str]]:
    """What to do, and why."""
    name = arms[1].alias
    n = int(float(found.n) + 1e-9)
    if n < least:
        what = "requests that both answered" if is_paired else "units of the smaller arm"
        problems = [*problems, f"{n} {what} have outcomes, and {least} are needed"]
    if problems:
        return "not yet", list(problems)
    low, high = interval
    wanted = f" by more than {gain:g}" if gain else ""
    bound = f"{-gain:g}" if gain else "0"
    notes = [] if is_paired or shares_known else ["which shares the arms should have is not known, and not checked"]
    if high < -gain:
        return "promote", [f"the whole interval is below {bound}: {name} is better{wanted}", *notes]
    if low > -gain:
        verdict = "is not better by so much" if gain else "is worse"
        return "keep", [f"the whole interval is above {bound}: {name} {verdict}", *notes]
    return "not yet", [f"the interval includes {bound}: it is open which of them is better{wanted}", *notes]
