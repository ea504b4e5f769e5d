"""Could this be chance? Exact tests on counts, without any package."""

from __future__ import annotations

from math import exp, lgamma, log2

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

    >>> round(fisher_exact(3, 3, 3, 6), 12)
    0.05
    """
    if hits_inside <= max(0, inside + hits - total):
        return 1.0
    term = exp(_log_comb(inside, hits_inside) + _log_comb(total - inside, hits - hits_inside) - _log_comb(total, hits))
    found = 0.0
    for k in range(hits_inside, min(inside, hits) + 1):
        found += term
        if term <= found * 1e-17 and k > hits_inside:
            break  # they only get smaller from here
        rest = (k + 1) * (total - inside - hits + k + 1)
        term *= (inside - k) * (hits - k) / rest
    return min(1.0, found)


def _log_comb(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


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
