"""Which of two versions of a model that is served is better? `umbel.ab`.

The loss of each version on the requests that it answered, their difference with a confidence sequence, whether the
arms had the shares that they were to have, and what follows: `promote`, `keep` or `not yet`. The methods are in
`umbel.scheduler.statistics.confidence`. It may be asked as often as one likes, and stopped at any answer. It must not
know how the log is written, nor how versions are registered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from umbel.runtime.production.ab_data import Answers, Unit, Units, pair_up, read_answers, split_up
from umbel.runtime.production.ab_decision import decide, find_problems, judge_shares, p_value
from umbel.runtime.production.ab_result import Arm, Comparison, Decision, GroupComparison, Look
from umbel.runtime.production.losses import LossFunction, find_loss
from umbel.scheduler.errors import UsageError
from umbel.scheduler.statistics.confidence import (
    Difference,
    Moments,
    e_bh,
    moments,
    paired,
    running_moments,
    tuning,
    unpaired,
)
from umbel.storage.store import Store

__all__ = ["ab", "compare"]

Rows: TypeAlias = npt.NDArray[np.int64]
#: Looks that a chart shows.
_MAX_LOOKS = 240


def ab(
    model: str,
    *,
    store: Store | str | None = None,
    champion: str = "champion",
    challenger: str = "challenger",
    loss: str | LossFunction = "squared",
    alpha: float = 0.05,
    least: int = 200,
    gain: float = 0.0,
    design: str = "auto",
    unit: str = "auto",
    shares: Mapping[str, float] | None = None,
    since: datetime | None = None,
) -> Comparison:
    """Compare the versions that two aliases of a served model point to, by their predictions and outcomes so far.

    It may be called at any time and as often as wanted: under no difference, the chance that any of the answers is
    "promote" or "keep" is at most about ``alpha``. Choose the arguments before the first look. docs/experiments.md says
    what is assumed.

    Args:
        model: the name of a registered model.
        store: where it is registered and logged; None: ``$UMBEL_STORE``, else ``./umbel-store``.
        champion: an alias, or the number of a version.
        challenger: likewise.
        loss: "squared", "absolute", "percentage", "wrong" (0 or 1), "log" (of probabilities), "pinball:0.9", or a
            function of two arrays, answers and outcomes, that returns the losses. Smaller is better.
        alpha: the chance of a wrong decision, at most 0.5.
        least: units of the smaller arm (or pairs) before which nothing is decided, at least 20; the interval is
            tightest at ten times as many.
        gain: how much lower the challenger's mean loss must be to be promoted, in units of the loss.
        design: "paired": by requests that both answered (a shadow); "unpaired": by those that one answered; "auto":
            whichever has more answers of the challenger.
        unit: "request", or "key": of each caller's key only the first request with an outcome counts, since requests of
            one key are assigned, and may be easy or hard, together. "auto": by key where the log has keys and arms were
            assigned by them.
        shares: how often each arm was to be chosen ({"champion": 90, "challenger": 10}), for rows of the log that do
            not say so themselves.
        since: leave out what was answered before.

    Raises:
        NotFoundError: there is no such model, version or alias.
        UsageError: an argument can't be used, or both are the same version.
        StoreError: the store can't be read.

    Cost: all objects of the log since then are read; about 0.8 s and 50 MB for 100,000 rows.
    """
    from umbel.runtime.production.served import registered_model
    from umbel.storage.predictions.batch_log import DROPPED_KEY
    from umbel.storage.predictions.reader import read_predictions

    found = registered_model(model, store)
    both = [found.version(alias) for alias in (champion, challenger)]
    versions = [(alias, version.number) for alias, version in zip((champion, challenger), both, strict=True)]
    rows = read_predictions(found.objects, model, since)
    compared = compare(
        rows,
        model=model,
        champion=versions[0],
        challenger=versions[1],
        loss=loss,
        alpha=alpha,
        least=least,
        gain=gain,
        design=design,
        unit=unit,
        shares=shares,
        dropped=int((rows.schema.metadata or {}).get(DROPPED_KEY.encode(), b"0")),
    )
    digests = both[0].digests()
    if digests == both[1].digests():
        same = f"both versions have the same {'model' if len(digests) == 1 else 'models'}, byte for byte"
        compared = replace(compared, because=(same, *compared.because))
    return compared


def compare(
    rows: pa.Table,
    *,
    model: str,
    champion: tuple[str, int],
    challenger: tuple[str, int],
    loss: str | LossFunction = "squared",
    alpha: float = 0.05,
    least: int = 200,
    gain: float = 0.0,
    design: str = "auto",
    unit: str = "auto",
    shares: Mapping[str, float] | None = None,
    dropped: int = 0,
) -> Comparison:
    """Compare two versions by the rows of a log; see `umbel.ab` for the arguments.

    Args:
        rows: as `read_predictions` gives them.
        champion: its alias and version.
        challenger: likewise.
        dropped: rows that are known to be missing.
    """
    _check(champion, challenger, alpha, least, gain, design, unit)
    how_wrong = find_loss(loss)
    answers = read_answers(rows, champion[1], challenger[1], how_wrong)
    given = _given_shares(shares, champion[0], challenger[0])
    units, by_group, used, is_paired = _units(answers, design, unit, given)
    rho2 = tuning(alpha, 10 * least)
    everything = np.arange(len(units.loss))
    samples = _samples(units, everything, is_paired)
    found = _difference(units, everything, is_paired, samples)
    low, high = (float(each) for each in found.interval(alpha, rho2))
    log_e = float(found.log_evidence(-gain, rho2)) if float(found.n) >= least else 0.0
    counts = _counts(units, everything, is_paired)
    arms = _arm(champion, units, 0, counts[0], samples[0]), _arm(challenger, units, 1, counts[1], samples[1])
    check, outcome_check = judge_shares(units.strata), judge_shares(units.judged_strata)
    problems = find_problems(arms, check, outcome_check)
    decision, because = decide(arms, problems, found, (low, high), least, gain, is_paired, check is not None)
    blocked = any(each is not None and not each.ok for each in (check, outcome_check))
    return Comparison(
        model,
        how_wrong.name,
        "paired" if is_paired else "unpaired",
        used,
        alpha,
        least,
        gain,
        *arms,
        _number(found.estimate) if float(found.n) >= 2 else None,
        _number(low),
        _number(high),
        p_value(log_e),
        check,
        outcome_check,
        decision,
        tuple(because),
        _groups(by_group, answers.groups, is_paired, alpha, rho2, least, gain, blocked),
        dropped,
        answers.unfit,
        _looks(units, is_paired, alpha, rho2),
    )


def _units(
    answers: Answers, design: str, unit: str, shares: tuple[float, float] | None
) -> tuple[Units, Units, Unit, bool]:
    """What is compared as a whole and group by group, what a unit is, and whether units are pairs."""
    pairs_of: Unit = "key" if unit == "key" else "request"
    split_of: Unit = "key" if unit == "key" or (unit == "auto" and answers.keyed) else "request"
    pairs = pair_up(answers, pairs_of)
    split = split_up(answers, split_of, shares)
    if design == "paired" or (design == "auto" and pairs.assigned[1] > split.assigned[1]):
        by_group = pair_up(answers, "key", within_groups=True) if pairs_of == "key" else pairs
        return pairs, by_group, pairs_of, True
    # Of a key that asks for many groups the first request in each counts for that group.
    by_group = split_up(answers, "key", shares, within_groups=True) if split_of == "key" else split
    return split, by_group, split_of, False


def _check(
    champion: tuple[str, int],
    challenger: tuple[str, int],
    alpha: float,
    least: int,
    gain: float,
    design: str,
    unit: str,
) -> None:
    if champion[1] == challenger[1]:
        raise UsageError(
            f"there is nothing to compare: {champion[0]!r} and {challenger[0]!r} are the same version",
            got=f"version {champion[1]}",
            hint=f"point {challenger[0]!r} to another version: umbel promote MODEL VERSION --alias {challenger[0]}",
        )
    if not 0 < alpha <= 0.5:
        raise UsageError("this can't be an error rate", got=f"alpha={alpha}", expected="above 0, at most 0.5")
    if least < 20:
        raise UsageError(
            "the method holds for large samples only",
            got=f"a minimum of {least}",
            expected="20 or more of each arm; 200 or more if losses are skewed",
        )
    if not (gain >= 0 and math.isfinite(gain)):
        raise UsageError("this can't be a least gain", got=f"gain={gain}", expected="0 or more, in units of the loss")
    for name, value, known in (
        ("design", design, ("auto", "paired", "unpaired")),
        ("unit", unit, ("auto", "request", "key")),
    ):
        if value not in known:
            raise UsageError(f"there is no such {name}", got=repr(value), expected="one of " + ", ".join(known))


def _given_shares(shares: Mapping[str, float] | None, champion: str, challenger: str) -> tuple[float, float] | None:
    if shares is None:
        return None
    total = sum(shares.values())
    if {champion, challenger} - set(shares) or min(shares.values()) <= 0 or not math.isfinite(total):
        raise UsageError(
            "the split must give each arm a share above 0",
            got=", ".join(f"{name}={share:g}" for name, share in shares.items()),
            expected=f"{champion}=90,{challenger}=10, say",
        )
    return shares[champion] / total, shares[challenger] / total


# ---- figures ---------------------------------------------------------------------------------------------------


def _samples(units: Units, rows: Rows, is_paired: bool) -> tuple[Moments, Moments]:
    """The moments of both arms' losses among some units."""
    if is_paired:
        return moments(units.other[rows]), moments(units.loss[rows])
    first, second = rows[~units.second[rows]], rows[units.second[rows]]
    return (
        moments(units.loss[first], _weights(units, first)),
        moments(units.loss[second], _weights(units, second)),
    )


def _weights(units: Units, rows: Rows) -> npt.NDArray[np.float64] | None:
    """The weights of some units; None: all are equal, and need not be looked at."""
    weights = units.weight[rows]
    return None if bool((weights == weights[:1]).all()) else weights


def _difference(units: Units, rows: Rows, is_paired: bool, samples: tuple[Moments, Moments]) -> Difference:
    return paired(moments(units.loss[rows] - units.other[rows])) if is_paired else unpaired(*samples)


def _counts(units: Units, rows: Rows, is_paired: bool) -> tuple[int, int]:
    second = int(units.second[rows].sum())
    return (len(rows), len(rows)) if is_paired else (len(rows) - second, second)


def _arm(named: tuple[str, int], units: Units, side: int, n: int, sample: Moments) -> Arm:
    return Arm(
        *named,
        units.assigned[side],
        n,
        units.waiting[side],
        units.unusable[side],
        float(sample.mean) if n else None,
    )


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(float(value)) else None


def _groups(
    units: Units,
    names: tuple[str, ...],
    is_paired: bool,
    alpha: float,
    rho2: float,
    least: int,
    gain: float,
    blocked: bool,
) -> tuple[GroupComparison, ...]:
    """Each group by e-BH, with intervals so wide that a share ``alpha`` of those that are told is wrong at most.

    Z. Xu, R. Wang and A. Ramdas, "Post-selection inference for e-value based confidence intervals", Electronic Journal
    of Statistics 18 (2024): at the level alpha × decided / all, at which a group is decided just if 0 is left out.
    """
    order = np.argsort(units.group, kind="stable")  # one pass, not one a group
    ends = np.searchsorted(units.group[order], np.arange(len(names)), side="right")
    found = []
    for rows in np.split(order, ends[:-1]) if len(names) else []:
        samples = _samples(units, rows, is_paired)
        difference = _difference(units, rows, is_paired, samples)
        log_e = float(difference.log_evidence(-gain, rho2)) if float(difference.n) >= least else 0.0
        found.append((samples, difference, _counts(units, rows, is_paired), log_e))
    believed = e_bh([log_e for *_, log_e in found], alpha)
    level = alpha * max(1, int(believed.sum())) / max(1, len(found))
    groups = []
    for code, (samples, difference, counts, log_e) in enumerate(found):
        low, high = difference.interval(level, rho2)
        decision: Decision = "not yet"
        if believed[code] and not blocked and code not in units.unusable_groups:
            decision = "promote" if float(difference.estimate) < -gain else "keep"
        groups.append(
            GroupComparison(
                names[code],
                *counts,
                float(samples[0].mean) if counts[0] else None,
                float(samples[1].mean) if counts[1] else None,
                _number(difference.estimate) if float(difference.n) >= 2 else None,
                _number(low),
                _number(high),
                p_value(log_e),
                decision,
            )
        )
    return tuple(sorted(groups, key=lambda each: each.group))


def _looks(units: Units, is_paired: bool, alpha: float, rho2: float) -> tuple[Look, ...]:
    """The interval as it was at some moments, from the first that says anything."""
    count = len(units.loss)
    if not count:
        return ()
    if is_paired:
        found = paired(running_moments(units.loss - units.other))
    else:
        weights = _weights(units, np.arange(count))
        found = unpaired(
            running_moments(units.loss, ~units.second, weights), running_moments(units.loss, units.second, weights)
        )
    low, high = found.interval(alpha, rho2)
    known = np.flatnonzero((found.n >= 20) & np.isfinite(low) & np.isfinite(high))
    if not len(known):
        return ()
    places = np.unique(known[np.linspace(0, len(known) - 1, min(_MAX_LOOKS, len(known))).astype(np.int64)])
    return tuple(
        Look(int(units.known[at]), int(at) + 1, float(found.estimate[at]), float(low[at]), float(high[at]))
        for at in places
    )
