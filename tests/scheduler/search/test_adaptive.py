"""The study of one group, as Optuna sees it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import optuna
import pytest

from umbel.runtime.search.searches import placeholder_space
from umbel.scheduler.search.adaptive import (
    AdaptiveSearch,
    CopiedSampler,
    GroupStudy,
    KnownTrial,
    NamedSampler,
    study_seed,
)
from umbel.scheduler.search.sampling import TrialSource


def test_to_optuna_a_trial_without_a_config_has_failed() -> None:
    def define(trial: optuna.Trial) -> None:
        trial.suggest_float("x", 0, 1)
        if trial.number == 1:
            raise RuntimeError("no second")

    study = study_of(define)
    params, _ = study.ask(0)
    study.tell(0, [1.0])
    with pytest.raises(RuntimeError, match="no second"):
        study.ask(1)
    study.ask(2)
    assert states(study) == ["COMPLETE", "FAIL", "RUNNING"]
    again = study_of(define)
    assert again.take_up(3, [KnownTrial(0, params, (1.0,)), KnownTrial(1, None, None)])
    assert states(again) == ["COMPLETE", "FAIL", "RUNNING"]


def test_trials_that_others_run_are_left_open() -> None:
    study = study_of(lambda trial: trial.suggest_float("x", 0, 1))
    study.put([KnownTrial(0, {"x": 0.25}, None, running=True), KnownTrial(1, {"x": 0.5}, (1.0,))])
    assert states(study) == ["RUNNING", "COMPLETE"]


@pytest.mark.parametrize("make", [CopiedSampler(optuna.samplers.TPESampler(seed=5)), NamedSampler("tpe")])
def test_several_workers_at_a_study_do_not_suggest_the_same(make: Any) -> None:
    source = TrialSource(placeholder_space(), "random", 0, "s", 9)
    search = AdaptiveSearch("own", make, source, ("minimize",), lambda trial: trial.suggest_float("x", 0, 1))
    asked = [search.study("{}", {}, salt=salt).ask(0)[0]["x"] for salt in (None, None, 1, 2, 3)]
    assert asked[0] == asked[1]
    assert len(set(asked)) == 4


@pytest.mark.parametrize("without", [None, "optuna.study._tell"])
def test_what_comes_of_a_trial_is_what_optuna_makes_of_it(without: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not Optuna's own way of telling without a copy is where it was."""
    ends: list[tuple[list[float] | None, int | None]] = [
        ([1.0], None),
        (None, None),
        ([2.0], 3),
        (None, 4),
        ([5.0], None),
    ]
    alone = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=study_seed(0, "s", "{}")))
    for values, pruned_at in ends:
        trial = alone.ask()
        trial.suggest_float("x", 0, 1)
        if pruned_at is not None and values is not None:
            trial.report(values[0], pruned_at)
        pruned = optuna.trial.TrialState.PRUNED if pruned_at is not None else None
        failed = optuna.trial.TrialState.FAIL if values is None else None
        alone.tell(trial, None if pruned else values, pruned or failed)
    if without is not None:
        monkeypatch.setitem(sys.modules, without, None)
    study = study_of(lambda trial: trial.suggest_float("x", 0, 1))
    for number, (values, pruned_at) in enumerate(ends):
        study.ask(number)
        study.tell(number, values, pruned_at)

    def told(trials: list[optuna.trial.FrozenTrial]) -> list[Any]:
        return [(each.state, each.values, each.params, each.intermediate_values) for each in trials]

    assert told(study._study.trials) == told(alone.trials)


def study_of(define: Callable[[Any], Any]) -> GroupStudy:
    source = TrialSource(placeholder_space(), "random", 0, "s", 9)
    return AdaptiveSearch("tpe", NamedSampler("tpe"), source, ("minimize",), define).study("{}", {})


def states(study: GroupStudy) -> list[str]:
    return [trial.state.name for trial in study._study.trials]
