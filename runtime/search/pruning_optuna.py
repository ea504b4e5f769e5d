"""How do Optuna's pruners judge trials of a sweep? Each group is a study in memory, kept up to date by records.

A study holds the trials of its group that this process knows of: those that it runs, and what it is told of others.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

from umbel.scheduler.search.pruning import Mark, Record
from umbel.scheduler.search.sampling import TrialSource

__all__ = ["ENDED", "OptunaJudges"]

#: Instead of a rung: the trial has ended so.
ENDED = {"ok": -1, "pruned": -2, "failed": -3}
#: Reports of one trial that others are told of, and that stand in its row.
MOST_REPORTS = 1000


class OptunaJudges:
    """Judges by a pruner of Optuna's.

    Args:
        pruner: the pruner; each group gets a copy.
        mode: "min" or "max".
        source: the sweep's trials.
        on_record: told of every report that a trial made here, and of its end.
        refresh: called before every verdict; the moment to let it `learn`.
    """

    def __init__(
        self,
        pruner: Any,
        mode: str,
        source: TrialSource,
        on_record: Callable[[Record], object],
        refresh: Callable[[], object],
    ) -> None:
        self._pruner = pruner
        self._direction: Any = "minimize" if mode == "min" else "maximize"
        self._source = source
        self.on_record = on_record
        self.refresh = refresh
        self._studies: dict[int, Any] = {}
        #: Optuna's ids of trials.
        self._ids: dict[int, int] = {}

    def learn(self, records: Iterable[Record]) -> None:
        """Take into account what trials reported elsewhere, or before."""
        for record in records:
            study = self.study(record.trial)
            known = self._ids.get(record.trial)
            if known is not None and study._storage.get_trial(known).state.is_finished():
                continue
            if record.rung < 0:
                self.finish(record.trial, record.rung, record.value)
            else:
                # The verdict is another's; what pruners note while they judge is wanted here too.
                self.judge(record.trial, record.step, record.value)

    def course(self, trial: int) -> OptunaCourse:
        """A trial that begins; what is known of an earlier attempt at it no longer counts."""
        if trial in self._ids:
            self.finish(trial, ENDED["failed"], math.nan)
            del self._ids[trial]
        return OptunaCourse(self, trial)

    def study(self, trial: int) -> Any:
        """The study of a trial's group."""
        group = trial // self._source.trials
        study = self._studies.get(group)
        if study is None:
            import optuna

            optuna.logging.set_verbosity(max(optuna.logging.WARNING, optuna.logging.get_verbosity()))
            study = self._studies[group] = optuna.create_study(
                study_name=f"{self._source.sweep}-{group}",
                direction=self._direction,
                pruner=copy.deepcopy(self._pruner),
                storage=optuna.storages.InMemoryStorage(),
            )
        return study

    def judge(self, trial: int, step: int, value: float) -> bool:
        """Note what a trial reports, and ask the pruner."""
        study = self.study(trial)
        storage = study._storage
        number = self._ids.get(trial)
        if number is None:
            number = self._ids[trial] = storage.create_new_trial(study._study_id)
        storage.set_trial_intermediate_value(number, step, value)
        return bool(study.pruner.prune(study, storage.get_trial(number)))

    def finish(self, trial: int, ended: int, value: float) -> None:
        """A trial has ended; one that reported nothing says nothing."""
        from optuna.trial import TrialState

        number = self._ids.get(trial)
        if number is None:
            return
        storage = self.study(trial)._storage
        states = {ENDED["ok"]: TrialState.COMPLETE, ENDED["pruned"]: TrialState.PRUNED}
        state = states.get(ended, TrialState.FAIL)
        if not storage.get_trial(number).state.is_finished():
            storage.set_trial_state_values(number, state, None if state is TrialState.FAIL else [value])


class OptunaCourse:
    """One trial on its way."""

    def __init__(self, judges: OptunaJudges, trial: int) -> None:
        self._judges = judges
        self._trial = trial
        #: What it reported, the first `MOST_REPORTS` times.
        self.marks: list[Mark] = []
        self._last: tuple[int, float] | None = None

    def report(self, step: int, value: float) -> bool:
        """Whether a trial that reports this is to be stopped. Cost: that of the pruner."""
        if self._last is not None and step <= self._last[0]:
            return False
        self._last = step, value
        self._judges.refresh()
        stop = self._judges.judge(self._trial, step, value)
        if len(self.marks) < MOST_REPORTS:
            self.marks.append(Mark(step, step, value, None, 0, None))
            self._judges.on_record(Record(self._trial, step, step, value))
        return stop

    def announce(self, step: int, value: float) -> None:
        """Optuna's pruners go by what has been reported: trials of a batch are judged in their order."""

    def announce_rank(self, step: int, value: float) -> None:
        """They know no ranks."""

    def end(self, status: str) -> None:
        """The trial has ended, with this status."""
        if self._last is not None:
            ended = ENDED.get(status, ENDED["failed"])
            self._judges.finish(self._trial, ended, self._last[1])
            self._judges.on_record(Record(self._trial, ended, *self._last))
