"""Which answers of a log can be compared, as what, and in which order?

It turns rows of the log into units: one observation of one arm (or of both, where one shadows the other), with its
loss, its weight and the moment when its truth was known. It must not decide anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from umbel.runtime.production.losses import Loss
from umbel.storage.values.columns import contains, float_values, int_values

__all__ = ["Answers", "Units", "pair_up", "read_answers", "split_up"]

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Unit: TypeAlias = Literal["request", "key"]


@dataclass(frozen=True, slots=True)
class Answers:
    """The rows of the log that are of one of the two versions, as arrays."""

    #: Whether it is the challenger's, and whether the caller saw another answer.
    second: Bools
    shadow: Bools
    #: Codes: equal for equal requests of equal groups, for equal groups, for requests assigned together.
    request: Ints
    group: Ints
    key: Ints
    groups: tuple[str, ...]
    #: Whether any has a key of its caller.
    keyed: bool
    #: How often its arm was to be chosen; NaN: not at random, or not known.
    share: Floats
    #: Whether either version could have answered: both had an arm then.
    in_play: Bools
    #: NaN without an outcome; not finite, too, where it can't be computed.
    loss: Floats
    judged: Bools
    #: Requests whose outcome is none for this loss.
    unfit: int
    #: Microseconds since the epoch: of the answer, and of the outcome (of the answer, where there is none).
    time: Ints
    known: Ints


@dataclass(frozen=True, slots=True)
class Units:
    """What is compared: one element an observation, in order of the moment when its truth was known."""

    #: Of unpaired units, whether it is the challenger's; of pairs, all False.
    second: Bools
    group: Ints
    #: The loss; of pairs, the challenger's.
    loss: Floats
    #: Of pairs, the champion's loss; else NaN.
    other: Floats
    #: The inverse of the share that its arm had; 1 where that is not known.
    weight: Floats
    known: Ints
    #: Units without an outcome yet, and with one but without a finite loss, of each arm (of pairs: of either).
    waiting: tuple[int, int]
    unusable: tuple[int, int]
    #: Groups in which an answer of the challenger is such a one.
    unusable_groups: frozenset[int]
    #: Units of each arm before any question of outcomes.
    assigned: tuple[int, int]
    #: (share of the challenger among the two, champion's units, challenger's): what the shares are judged by.
    strata: tuple[tuple[float, int, int], ...]
    #: The same of units that have an outcome.
    judged_strata: tuple[tuple[float, int, int], ...]


def read_answers(rows: pa.Table, champion: int, challenger: int, loss: Loss) -> Answers:
    """The rows of two versions.

    Args:
        rows: as `read_predictions` gives them.
        champion: a version.
        challenger: another one.
        loss: how wrong an answer is.
    """
    versions = int_values(rows["version"])
    in_play = _both_in_play(rows, versions, champion, challenger)
    of_either = np.flatnonzero((versions == champion) | (versions == challenger))
    if len(of_either) < len(versions):
        rows, versions, in_play = rows.take(pa.array(of_either)), versions[of_either], in_play[of_either]
    requests = pc.binary_join_element_wise(rows["request_id"], rows["group"], "\0")
    group_codes, groups = _codes(rows["group"])
    keyed = rows["key_hash"].null_count < len(rows)
    keys = pc.coalesce(
        pc.binary_join_element_wise("k", rows["key_hash"], "\0"), pc.binary_join_element_wise("r", requests, "\0")
    )
    losses, judged = loss.of(rows)
    request_codes = _codes(requests)[0]
    unfit = len(np.unique(request_codes[_has_outcome(rows) & ~judged]))
    time = int_values(rows["time"])
    known = int_values(rows["outcome_time"])
    return Answers(
        versions == challenger,
        _shadows(rows),
        request_codes,
        group_codes,
        _codes(keys)[0],
        tuple(groups),
        keyed,
        float_values(rows["share"]),
        in_play,
        losses,
        judged,
        unfit,
        time,
        np.where(known > 0, known, time),
    )


def _shadows(rows: pa.Table) -> Bools:
    return contains(rows["shadow"].cast(pa.string()), frozenset({"true"}))


def _has_outcome(rows: pa.Table) -> Bools:
    there = pc.or_(pc.is_valid(rows["outcome"]), pc.is_valid(rows["outcome_json"]))
    return np.asarray(there.to_numpy(), np.bool_)


def _both_in_play(rows: pa.Table, versions: Ints, champion: int, challenger: int) -> Bools:
    """Of each row, whether both versions had an arm when it was answered.

    The champion answers beside one challenger after another: what it answered beside others was asked at another time,
    and its rows of that time would count against the shares, too. Which version another arm has is told by the rows
    before, so that it does not depend on chance which rows count; until its first row, it has the version of that.
    """
    share = float_values(rows["share"])
    chosen = ~_shadows(rows)
    if bool((~np.isnan(share) & chosen).any()):
        chosen &= (share > 0) & (share < 1)
    arms = _codes(pc.coalesce(rows["arm"], rows["version"].cast(pa.string())))[0]
    found = np.zeros((2, len(rows)), np.bool_)
    for arm in np.unique(arms[chosen]):
        of_arm = chosen & (arms == arm)
        last = np.maximum.accumulate(np.where(of_arm, np.arange(len(rows)), -1))
        before = np.concatenate(([-1], last[:-1]))
        before = np.where(before < 0, int(of_arm.argmax()), before)
        its_version = versions[np.where(of_arm, np.arange(len(rows)), before)]
        found |= np.stack((its_version == champion, its_version == challenger))
    return np.asarray(found.all(axis=0))


def _codes(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):  # of no chunks
        return np.zeros(0, np.int64), []
    return int_values(encoded.indices), encoded.dictionary.to_pylist()


def pair_up(answers: Answers, unit: Unit, *, within_groups: bool = False) -> Units:
    """Requests that both versions answered, one of them as a shadow.

    Args:
        answers: the answers.
        unit: "key" counts only the first request of each key.
        within_groups: of each key and group.
    """
    first = _first_rows(answers.request, ~answers.second)
    second = _first_rows(answers.request, answers.second)
    both = np.flatnonzero((first >= 0) & (second >= 0))
    both = both[answers.shadow[first[both]] | answers.shadow[second[both]]]
    a, b = first[both], second[both]
    order = np.argsort(answers.time[a], kind="stable")
    a, b = a[order], b[order]
    judged = answers.judged[a] & answers.judged[b]
    usable = np.isfinite(answers.loss[a]) & np.isfinite(answers.loss[b])
    if unit == "key":
        kept = _first_of_each(_keys(answers, a, within_groups), judged)
        a, b, judged, usable = a[kept], b[kept], judged[kept], usable[kept]
    counted = np.flatnonzero(judged & usable)
    counted = counted[np.argsort(answers.known[b[counted]], kind="stable")]
    chosen = b[counted]
    broken = [int((judged & ~np.isfinite(answers.loss[each])).sum()) for each in (a, b)]
    waiting = int((~judged).sum())
    return Units(
        np.zeros(len(chosen), np.bool_),
        answers.group[chosen],
        answers.loss[chosen],
        answers.loss[a[counted]],
        np.ones(len(chosen)),
        answers.known[chosen],
        (waiting, waiting),
        (broken[0], broken[1]),
        frozenset(answers.group[b[judged & ~np.isfinite(answers.loss[b])]].tolist()),
        (len(a), len(b)),
        (),
        (),
    )


def split_up(answers: Answers, unit: Unit, shares: tuple[float, float] | None, *, within_groups: bool = False) -> Units:
    """Requests that one of the versions answered, chosen at random.

    Args:
        answers: the answers.
        unit: "key" counts only the first request of each key: those of one key share their assignment.
        shares: how often champion and challenger were to be chosen, where the log does not say.
        within_groups: of each key and group.
    """
    share = answers.share
    if shares is not None:
        share = np.where(np.isnan(share), np.where(answers.second, shares[1], shares[0]), share)
    at_random = ~answers.shadow & answers.in_play
    if bool((~np.isnan(share) & at_random).any()):  # then those without one were asked for by name, not by chance
        at_random &= (share > 0) & (share < 1)
    rows = np.flatnonzero(at_random)
    rows = rows[np.argsort(answers.time[rows], kind="stable")]
    judged = answers.judged[rows]
    assigned = judged_rows = rows
    if unit == "key":
        keys = _keys(answers, rows, within_groups)
        assigned = rows[_first_of_each(keys, np.zeros(len(rows), np.bool_))]
        judged_rows = rows[_first_of_each(keys, judged)]
    judged_rows = judged_rows[answers.judged[judged_rows]]
    usable = np.isfinite(answers.loss[judged_rows])
    chosen = judged_rows[usable]
    chosen = chosen[np.argsort(answers.known[chosen], kind="stable")]
    broken = judged_rows[~usable]
    total, with_outcome = _arms(answers.second[assigned]), _arms(answers.second[judged_rows])
    return Units(
        answers.second[chosen],
        answers.group[chosen],
        answers.loss[chosen],
        np.full(len(chosen), np.nan),
        np.where(np.isnan(share[chosen]), 1.0, 1.0 / share[chosen]),
        answers.known[chosen],
        (max(0, total[0] - with_outcome[0]), max(0, total[1] - with_outcome[1])),
        _arms(answers.second[broken]),
        frozenset(answers.group[broken[answers.second[broken]]].tolist()),
        total,
        _strata(share[assigned], answers.second[assigned]),
        _strata(share[judged_rows], answers.second[judged_rows]),
    )


def _keys(answers: Answers, rows: Ints, within_groups: bool) -> Ints:
    keys = answers.key[rows]
    return keys * max(1, len(answers.groups)) + answers.group[rows] if within_groups else keys


def _arms(second: Bools) -> tuple[int, int]:
    return int((~second).sum()), int(second.sum())


def _first_rows(codes: Ints, chosen: Bools) -> Ints:
    """The first row of each code among those chosen; -1: there is none."""
    found = np.full(int(codes.max(initial=-1)) + 1, -1, np.int64)
    rows = np.flatnonzero(chosen)[::-1]
    found[codes[rows]] = rows  # the last write is the first row
    return found


def _first_of_each(keys: Ints, preferred: Bools) -> Ints:
    """The place of each key's first row, in order: of those preferred, if it has any."""
    order = np.lexsort((np.arange(len(keys)), ~preferred, keys))
    ordered = keys[order]
    first = np.ones(len(keys), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return np.sort(order[first])


def _strata(share: Floats, second: Bools) -> tuple[tuple[float, int, int], ...]:
    """Units by the share that the challenger had among the two arms, where that can be known.

    Of one share an arm it is their ratio, however many other arms there are. Of several (the split was changed, or is
    another for each group) it is known if there are only these two arms, whose shares make up one.
    """
    if not len(share) or np.isnan(share).any():
        return ()
    shares = np.round(share, 9)
    first, later = np.unique(shares[~second]), np.unique(shares[second])
    if len(first) <= 1 and len(later) <= 1:
        if not len(first) or not len(later):
            only = float((first if len(first) else later)[0])
            ratio = 1 - only if len(first) else only  # nothing of the other arm: taken for all the rest
        else:
            ratio = float(later[0] / (later[0] + first[0]))
        return ((ratio, *_arms(second)),)
    of_second = np.round(np.where(second, shares, 1 - shares), 6)
    values = np.unique(of_second)
    if not np.array_equal(np.unique(np.round(1 - first, 6)), np.unique(np.round(later, 6))):
        return ()
    return tuple((float(value), *_arms(second[of_second == value])) for value in values)
