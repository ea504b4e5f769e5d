"""Which configs of other groups should a group try, and when?

The driver makes a portfolio of what the groups so far have to lend: the few best configs of each, in the order in
which they would have served these groups best (a greedy choice: always the config that most lowers the mean, over the
groups, of the best so far; Wistuba et al. 2015, "Sequential model-free hyperparameter tuning"; Feurer et al. 2022,
"Auto-sklearn 2.0"; Winkelmolen et al. 2020, "Practical and sample efficient zero-shot HPO"). It travels with a lease.
Where the lease runs a borrower begins with the first of them, lets the group's own search look round, and then asks the
model of all groups (`umbel.scheduler.search.group_model`) for the config of the largest expected improvement: among
those that are lent, some that are drawn from the space, and some near the group's own best.

Two of three trials are chosen so, and the others by the group's own search, which sees all of them. Groups that only
tried what others lent them would know ever more of what they believe to be good and nothing of the rest, and have ever
less to teach (measured: `docs/decisions/0017-learning-across-groups.md`).

The same portfolio and the same outcomes give the same choices, so a study can be taken up anywhere. It must not know
how results are stored, nor samplers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from umbel.scheduler.search.axes import Axis, Floats, points
from umbel.scheduler.search.group_model import GroupModel, Kernels, comparable, fit, improvements

__all__ = [
    "GUIDED",
    "MODEL",
    "Borrower",
    "Candidate",
    "Lender",
    "Portfolio",
    "lent_score",
    "make_lender",
    "make_portfolio",
]

#: Trials of a study that are chosen so at most; then its sampler goes on alone.
GUIDED = 64
#: Configs drawn from the space for each of them, and near the group's best at each of some distances.
DRAWN, NEAR = 512, 256
#: The group's best trials that it is looked near to, and how far along a dimension: standard deviations.
BEST, DISTANCES = 4, (0.03, 0.1, 0.25)
#: Dimensions in which a config near another differs: each with one of these probabilities, and one in any case.
DIFFER = (0.2, 0.5)
#: What stands in the place of a config's origin if it was drawn.
MODEL = "model"
#: A group's first trials: one is lent, and with the others its own search looks round. Without them all groups would
#: begin, and often stay, where others were well.
OPENING = 6
#: Of so many trials then one is the own search's.
CYCLE = 3
#: Configs that a group lends.
LENT = 3
#: Finite outcomes that a group must have to lend.
ENOUGH = 5
#: Trials of a lender from which kernels are learned, the first so many, as soon as it has them; and such lenders: as
#: many as a power of two. So few kernels are learned in all, and the same ones after an interruption.
OPENINGS, TEACHERS = (32, 8), 8
#: Groups that lend, and configs in a portfolio: so it takes at most some 50 kB.
LENDERS, CANDIDATES = 64, 192
#: Trials of a group that count: its best, and the others evenly spaced.
TRIALS_EACH = 64


@dataclass(frozen=True, slots=True)
class Candidate:
    """A config that can be borrowed."""

    params: Mapping[str, Any]
    #: The trial that tried it first.
    origin: str


@dataclass(frozen=True, slots=True, eq=False)
class Lender:
    """What a group has to say to others."""

    at: Floats
    #: On the scale of `comparable`.
    outcomes: Floats
    #: Its best, best first.
    best: tuple[Candidate, ...]
    #: Its first trials, of which kernels are learned, and their outcomes; None: too few.
    opening: tuple[Floats, Floats] | None


@dataclass(frozen=True, slots=True, eq=False)
class Portfolio:
    """What other groups have to lend to one."""

    model: GroupModel
    #: In the order in which they served the lenders best.
    candidates: tuple[Candidate, ...]


def make_lender(
    axes: Sequence[Axis],
    configs: Sequence[Mapping[str, Any]],
    scores: Sequence[float],
    origins: Sequence[str],
    guided: Sequence[bool],
) -> Lender | None:
    """What a group lends; None: it has too few outcomes yet.

    Args:
        axes: the dimensions of the space.
        configs: its trials' params, in order.
        scores: their outcomes, less is better; not finite: it failed.
        origins: for each trial which one tried its config first.
        guided: whether it was chosen here, and not by the group's own search.
    """
    values = np.asarray(scores, np.float64)
    if int(np.isfinite(values).sum()) < ENOUGH:
        return None
    order = _telling(values)
    best: dict[str, Candidate] = {}
    for number in order.tolist():
        if len(best) == LENT or not np.isfinite(values[number]):
            break
        best.setdefault(_key(configs[number]), Candidate(configs[number], origins[number]))
    at = points(axes, [configs[number] for number in order.tolist()])
    first = next((count for count in OPENINGS if count <= len(values)), None)
    opening = None
    if first is not None:
        opening = points(axes, configs[:first]), comparable(values[:first], np.ones(first, np.bool_))
    return Lender(at, comparable(values, ~np.asarray(guided, np.bool_))[order], tuple(best.values()), opening)


def _telling(values: Floats) -> npt.NDArray[np.int64]:
    """Which of a group's outcomes count, best first: at most `TRIALS_EACH`."""
    order = np.argsort(values, kind="stable")
    if len(order) <= TRIALS_EACH:
        return order
    half = TRIALS_EACH // 2
    rest = order[half:]
    return np.concatenate([order[:half], rest[np.linspace(0, len(rest) - 1, half).round().astype(np.int64)]])


def teachers(lenders: Sequence[Lender]) -> list[tuple[Floats, Floats]]:
    """The trials of which kernels are to be learned (`learn_kernels`)."""
    openings = [lender.opening for lender in lenders if lender.opening is not None]
    count = TEACHERS
    while count > len(openings):
        count //= 2
    return openings[:count]


def make_portfolio(axes: Sequence[Axis], lenders: Sequence[Lender], kernels: Kernels) -> Portfolio | None:
    """What these groups lend to another; None: there are none.

    Of more than `LENDERS` groups as many are taken, evenly spaced. Cost: some 10 ms.

    Args:
        axes: the dimensions.
        lenders: the groups.
        kernels: learned of `teachers`.
    """
    if not lenders:
        return None
    if len(lenders) > LENDERS:
        lenders = [lenders[number] for number in np.linspace(0, len(lenders) - 1, LENDERS).round().astype(int)]
    model = fit(axes, [(lender.at, lender.outcomes) for lender in lenders], kernels)
    lent: dict[str, Candidate] = {}
    for lender in lenders:
        for candidate in lender.best:
            lent.setdefault(_key(candidate.params), candidate)
    candidates = list(lent.values())
    at = points(axes, [candidate.params for candidate in candidates])
    expected = np.array([model.expected(lender.at, lender.outcomes, at) for lender in lenders])
    return Portfolio(model, tuple(candidates[number] for number in greedy(expected, CANDIDATES)))


def lent_score(values: Sequence[float] | None, pruned_at: int | None, direction: str) -> float:
    """A trial's outcome as it counts here, less is better; infinite if it failed or was pruned, which is told of the
    worst."""
    if values is None or pruned_at is not None or not np.isfinite(values[0]):
        return float("inf")
    return values[0] if direction == "minimize" else -values[0]


def greedy(expected: Floats, count: int) -> list[int]:
    """At most ``count`` candidates, each the one that most lowers the mean over the lenders of the best so far.

    Args:
        expected: what each lender (row) has, or is expected to have, of each candidate (column); less is better.
    """
    chosen: list[int] = []
    best = np.full(len(expected), np.inf)
    mean = expected.mean(0)
    left = np.ones(expected.shape[1], np.bool_)
    for _ in range(min(count, expected.shape[1])):
        lowered = np.minimum(best[:, None], expected).mean(0) + 1e-6 * mean
        number = int(np.argmin(np.where(left, lowered, np.inf)))
        chosen.append(number)
        left[number] = False
        best = np.minimum(best, expected[:, number])
    return chosen


class Borrower:
    """Chooses the first configs of one study.

    Args:
        portfolio: what there is.
        seed: of what is drawn.
        draws: whether configs may be drawn from the space; it must be the same for all trials then.
    """

    def __init__(self, portfolio: Portfolio, seed: int, *, draws: bool) -> None:
        self._portfolio = portfolio
        self._seed, self._draws = seed, draws
        self._at = points(portfolio.model.axes, [candidate.params for candidate in portfolio.candidates])
        self._left = np.ones(len(self._at), np.bool_)
        self._places = {_key(candidate.params): n for n, candidate in enumerate(portfolio.candidates)}
        self._tried: list[Floats] = []
        self._scores: list[float] = []
        self._guided = 0

    def saw(self, params: Mapping[str, Any], score: float, *, guided: bool) -> None:
        """A trial of the study ended.

        Args:
            params: its config.
            score: its outcome, less is better; not finite: it failed.
            guided: whether it was chosen here.
        """
        self._guided += guided
        self._tried.append(points(self._portfolio.model.axes, [params])[0])
        self._scores.append(score)
        place = self._places.get(_key(params))
        if place is not None:
            self._left[place] = False

    def next(self) -> Candidate | None:
        """The config of the next trial; None: the study's sampler is to say. Cost: a few milliseconds."""
        number = len(self._tried)
        if self._guided >= GUIDED or not (self._draws or self._left.any()):
            return None
        if number < OPENING:
            return self._portfolio.candidates[int(np.argmax(self._left))] if number == 0 else None
        if number % CYCLE == CYCLE - 1:
            return None
        axes = self._portfolio.model.axes
        tried, scores = np.array(self._tried), np.array(self._scores)
        drawn = self._drawn(tried, scores) if self._draws else np.zeros((0, len(axes)))
        places = [axis.places(column) for axis, column in zip(axes, drawn.T, strict=True)]
        at = np.concatenate([self._at, np.array(places).T.reshape(drawn.shape)])
        outcomes, counts = comparable(scores, np.ones(number, np.bool_)), _telling(scores)
        gains = improvements(self._portfolio.model.belief(tried[counts], outcomes[counts], at))
        gains[: len(self._left)][~self._left] = -np.inf
        known = set(_rows(tried))
        gains[[row in known for row in _rows(at)]] = -np.inf
        chosen = int(np.argmax(gains))
        if gains[chosen] == -np.inf:
            return None  # all has been tried
        if chosen < len(self._left):
            return self._portfolio.candidates[chosen]
        row = drawn[chosen - len(self._left)].tolist()
        return Candidate({axis.name: axis.value(place) for axis, place in zip(axes, row, strict=True)}, MODEL)

    def _drawn(self, tried: Floats, scores: Floats) -> Floats:
        """Numbers in [0, 1) that stand for configs (`Axis.value`): all over the space, and near the best so far."""
        axes = self._portfolio.model.axes
        stream = np.random.Generator(np.random.Philox(key=[self._seed, len(tried)]))
        drawn = [stream.random((DRAWN, len(axes)))]
        best = tried[np.argsort(scores, kind="stable")[:BEST]]
        centres = np.array([axis.numbers(column) for axis, column in zip(axes, best.T, strict=True)]).T
        for distance in DISTANCES:
            near = centres[stream.integers(0, len(centres), NEAR)]
            differs = stream.random(near.shape) < np.array(DIFFER)[stream.integers(0, len(DIFFER), (NEAR, 1))]
            differs[np.arange(NEAR), stream.integers(0, len(axes), NEAR)] = True
            far = [max(distance, axis.coarseness) for axis in axes]
            moved = np.clip(near + stream.normal(0, 1, near.shape) * far, 0, np.nextafter(1, 0))
            other = stream.random(near.shape)
            is_choice = np.array([axis.choices is not None for axis in axes])
            drawn.append(np.where(differs | np.isnan(near), np.where(is_choice | np.isnan(near), other, moved), near))
        return np.concatenate(drawn)


def _rows(at: Floats) -> list[bytes]:
    """Points so that those that are one but for rounding are equal."""
    return [row.tobytes() for row in np.round(at, 9) + 0.0]


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(dict(params), sort_keys=True)
