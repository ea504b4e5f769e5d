"""How do trials stand at the rungs, and which of them go on? The verdicts of a rule, trial by trial.

`Standings` holds what is known of a sweep's trials, and `Course` takes one of them past the rungs. Nothing here knows
where records come from, nor how a trial is stopped.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from math import inf, isnan

from umbel.scheduler.search.pruning import Mark, Record, Rule

__all__ = ["Course", "Standings", "rank_among"]


def rank_among(score: float, others: Sequence[float]) -> float:
    """Where a score stands with others (ascending): (its place from 1, less ½) / how many; of equals the middle."""
    better, not_worse = bisect_left(others, score), bisect_right(others, score)
    return ((better + not_worse) / 2 + 0.5) / (len(others) + 1)


class _Scores:
    """Scores at one rung, one a trial, in ascending order."""

    __slots__ = ("_of", "ordered")

    def __init__(self) -> None:
        self.ordered: list[float] = []
        self._of: dict[int, float] = {}

    def put(self, trial: int, score: float) -> None:
        """Of a trial that is there already (tried again, or run twice) the last word counts."""
        self.drop(trial)
        self._of[trial] = score
        insort(self.ordered, score)

    def without(self, trial: int) -> list[float]:
        """The others' scores."""
        others = self.ordered.copy()
        if trial in self._of:
            del others[bisect_left(others, self._of[trial])]
        return others

    def drop(self, trial: int) -> None:
        known = self._of.pop(trial, None)
        if known is not None:
            del self.ordered[bisect_left(self.ordered, known)]


class Standings:
    """What is known of a sweep's trials at their rungs, and the verdicts on them.

    Args:
        rule: the rule.
        mode: "min" or "max".
        trials: how many a group.
        across: True compares trials of all groups, by their ranks in their groups.
        on_record: told of every record that a trial made here.
        refresh: called before every verdict; the moment to let it `learn`.
    """

    def __init__(
        self,
        rule: Rule,
        mode: str,
        trials: int,
        *,
        across: bool = False,
        on_record: Callable[[Record], object] = lambda record: None,
        refresh: Callable[[], object] = lambda: None,
    ) -> None:
        self.rule = rule
        self.trials = trials
        self._sign = 1.0 if mode == "min" else -1.0
        self._across = across
        self._on_record = on_record
        self._refresh = refresh
        self._values: dict[tuple[int, int], _Scores] = {}
        self._ranks: dict[int, _Scores] = {}

    def learn(self, records: Iterable[Record]) -> None:
        """Take into account what trials reported elsewhere, or before. Cost: a few microseconds a record."""
        for record in records:
            self._at(record.trial, record.rung).put(record.trial, self.score(record.value))
            if record.rank is not None:
                self._ranks.setdefault(record.rung, _Scores()).put(record.trial, record.rank)

    def course(self, trial: int) -> Course:
        """A trial that begins."""
        return Course(self, trial)

    def score(self, value: float) -> float:
        """A metric as a score, of which less is better and NaN is the worst."""
        return inf if isnan(value) else self._sign * value

    def _at(self, trial: int, rung: int) -> _Scores:
        key = (trial // self.trials, rung)
        found = self._values.get(key)
        if found is None:
            found = self._values[key] = _Scores()
        return found

    def announce(self, trial: int, rung: int, value: float) -> None:
        """A trial is at a rung, and will be judged there."""
        self._at(trial, rung).put(trial, self.score(value))

    def announce_rank(self, trial: int, rung: int, judged: float) -> None:
        """The same across groups, once all that are at the rung in its group have been announced."""
        if self._across:
            scores = self._at(trial, rung)
            rank = rank_among(judged, scores.without(trial))
            self._ranks.setdefault(rung, _Scores()).put(trial, rank)

    def judge(self, trial: int, rung: int, step: int, value: float, judged: float) -> tuple[Mark, bool]:
        """Note what a trial reports at a rung.

        Args:
            trial: its index in the sweep.
            rung: the rung.
            step: the step.
            value: the metric.
            judged: the score that it is judged by.

        Returns:
            The mark that it leaves, and True if it is to be stopped.
        """
        self._refresh()
        scores = self._at(trial, rung)
        scores.drop(trial)
        rank = None
        cutoff = self.rule.cutoff(scores.ordered)
        of, bar = len(scores.ordered), cutoff
        if self._across:
            ranks = self._ranks.setdefault(rung, _Scores())
            ranks.drop(trial)
            rank = rank_among(judged, scores.ordered)
            of, bar = len(ranks.ordered), self.rule.cutoff(ranks.ordered)
            # Each group has its best go on, so that none is left without a trial that ran to its end.
            stop = bar is not None and rank > bar and any(score < judged for score in scores.ordered[:1])
            ranks.put(trial, rank)
        else:
            stop = cutoff is not None and judged > cutoff
            bar = None if cutoff is None else self._sign * cutoff
        scores.put(trial, self.score(value))
        self._on_record(Record(trial, rung, step, value, rank))
        return Mark(rung, step, value, rank, of, bar), stop or isnan(value)


class Course:
    """One trial on its way past the rungs."""

    __slots__ = ("_best", "_position", "_rung", "_standings", "marks", "trial")

    def __init__(self, standings: Standings, trial: int) -> None:
        self._standings = standings
        self.trial = trial
        self._position = trial % standings.trials
        self._rung = -1
        self._best = inf
        #: What it left at the rungs that it passed.
        self.marks: list[Mark] = []

    def announce(self, step: int, value: float) -> None:
        """The trial is about to report this, together with others: these are compared with it too.

        Trials that run side by side come to a rung at once; judged one after another, the first would always go on.
        """
        rung = self._next_rung(step)
        if rung is not None:
            self._standings.announce(self.trial, rung, value)

    def announce_rank(self, step: int, value: float) -> None:
        """The same once more, after all of them have announced their values: then their ranks are known, too."""
        rung = self._next_rung(step)
        if rung is not None:
            self._standings.announce_rank(self.trial, rung, self._judged(value))

    def report(self, step: int, value: float) -> bool:
        """Whether a trial that reports this is to be stopped. Cost: about a microsecond, ten at a rung."""
        rung = self._next_rung(step)
        if rung is None:
            return False
        self._rung, judged = rung, self._judged(value)
        self._best = min(self._best, self._standings.score(value))
        mark, stop = self._standings.judge(self.trial, rung, step, value, judged)
        self.marks.append(mark)
        return stop

    def _next_rung(self, step: int) -> int | None:
        rung = self._standings.rule.rung(self._position, step)
        return None if rung is None or rung <= self._rung else rung

    def _judged(self, value: float) -> float:
        score = self._standings.score(value)
        return min(self._best, score) if self._standings.rule.by_best else score

    def end(self, status: str) -> None:
        """The trial has ended; that changes nothing for others."""
