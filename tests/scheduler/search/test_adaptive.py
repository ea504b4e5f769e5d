"""The study of one group, as Optuna sees it."""

from __future__ import annotations

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


def study_of(define: Callable[[Any], Any]) -> GroupStudy:
    source = TrialSource(placeholder_space(), "random", 0, "s", 9)
    return AdaptiveSearch("tpe", NamedSampler("tpe"), source, ("minimize",), define).study("{}", {})


def states(study: GroupStudy) -> list[str]:
    return [trial.state.name for trial in study._study.trials]
