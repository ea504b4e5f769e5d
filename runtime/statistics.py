"""Could this be chance? Exact tests on counts, in whole numbers, without any package."""

from __future__ import annotations

from math import comb, log2

__all__ = ["fisher_exact", "information_gain", "sign_test"]


def sign_test(wins: int, losses: int) -> float:
    """The chance of so uneven a split, either way, if wins and losses were equally likely; ties are left out before.

    The exact two-sided sign test: W. J. Dixon and A. M. Mood, "The statistical sign test", Journal of the American
    Statistical Association 41 (1946), 557-566.

    >>> sign_test(9, 1)
    0.021484375
    """
    n, k = wins + losses, min(wins, losses)
    term, total = 1, 1  # comb(n, 0), and the sum so far
    for i in range(k):
        term = term * (n - i) // (i + 1)
        total += term
    return min(1.0, float(2 * total / 2**n))


def fisher_exact(hits_inside: int, inside: int, hits: int, total: int) -> float:
    """The chance that a part of a population holds at least so many of its hits, if they were spread at random.

    Fisher's exact test, one-sided, for the table (inside or not) × (hit or not): R. A. Fisher, "The logic of inductive
    inference", Journal of the Royal Statistical Society 98 (1935), 39-82.

    Args:
        hits_inside: hits in the part.
        inside: size of the part.
        hits: hits in the population.
        total: size of the population.

    >>> fisher_exact(3, 3, 3, 6)
    0.05
    """
    most = min(inside, hits)
    term = comb(inside, hits_inside) * comb(total - inside, hits - hits_inside)
    found = 0
    for k in range(hits_inside, most + 1):
        found += term
        # From comb(inside, k) * comb(total - inside, hits - k) to that of k + 1.
        rest = (k + 1) * (total - inside - hits + k + 1)
        term = term * (inside - k) * (hits - k) // rest if rest else 0
    return found / comb(total, hits)


def information_gain(hits_inside: int, inside: int, hits: int, total: int) -> float:
    """How many bits knowing whether something is in the part says on whether it is a hit; 0 to 1.

    J. R. Quinlan, "Induction of decision trees", Machine Learning 1 (1986), 81-106.
    """
    outside = total - inside
    after = inside * _entropy(hits_inside, inside) + outside * _entropy(hits - hits_inside, outside)
    return _entropy(hits, total) - after / total if total else 0.0


def _entropy(hits: int, total: int) -> float:
    if hits in (0, total):
        return 0.0
    p = hits / total
    return -p * log2(p) - (1 - p) * log2(1 - p)
