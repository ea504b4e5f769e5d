"""The built-in gates, each against versions that pass and that do not."""

from __future__ import annotations

import inspect
from typing import Any
from uuid import uuid4

import pytest

import umbel
from tests.storage.conftest import record  # noqa: F401 - a fixture
from tests.storage.registered import Scale, add_run
from umbel import gates
from umbel.runtime.production.gates import parse_gate
from umbel.storage.registry.model_version import ModelVersion
from umbel.storage.registry.registered_model import RegisteredModel

THREE = {"DEU": ([1.0], 2.0), "FRA": ([1.0], 2.0), "ITA": ([1.0], 2.0)}


def error(outputs: Any, truth: float) -> float:
    return abs(float(outputs[0]) - truth)


@pytest.fixture
def model(record: dict[str, Any]) -> RegisteredModel:  # noqa: F811
    """Version 2 is better in two of three groups, version 3 worse by 4 % in one; all in a store that is trusted."""
    store = umbel.open_store(f"memory://{uuid4().hex}")
    for number, (metrics, factors) in enumerate(
        [((0.5, 0.5, 0.5), (1.0, 1.0, 1.0)), ((0.1, 0.2, 0.9), (2.0, 2.5, 9.0)), ((0.5, 0.5, 0.52), (1.0, 1.0, 0.9))], 1
    ):
        add_run(store, record, f"run-{number}", models=[Scale(factor) for factor in factors], metrics=metrics)
        store.registry.register(f"run-{number}", model="m", inputs=[1.0])
    return store.registry.model("m")


def judge(gate: gates.Gate, model: RegisteredModel, candidate: int, current: int | None = 1) -> gates.GateResult:
    result = gate(model.version(candidate), None if current is None else model.version(current))
    assert isinstance(result, gates.GateResult)
    return result


def test_better_on_most(model: RegisteredModel) -> None:
    two_thirds = judge(gates.better_on_most(share=0.66), model, 2)
    assert two_thirds.passed
    assert two_thirds.note == "better in 2 of 3 groups"
    assert [row.ok for row in two_thirds.rows] == [True, True, False]
    assert not judge(gates.better_on_most(share=0.7), model, 2).passed
    assert not judge(gates.better_on_most(), model, 3).passed  # equal is not better
    assert judge(gates.better_on_most(mode="max"), model, 3, 1).note == "better in 1 of 3 groups"
    assert judge(gates.better_on_most(), model, 2, None).passed


def test_no_group_worse(model: RegisteredModel) -> None:
    assert judge(gates.no_group_worse(by=0.05), model, 3).passed
    worse = judge(gates.no_group_worse(by=0.03), model, 3)
    assert [row.group for row in worse.rows if not row.ok] == ["ITA"]
    assert not judge(gates.no_group_worse(), model, 2).passed
    assert judge(gates.no_group_worse("mase", by=0, mode="max"), model, 3).passed
    assert judge(gates.no_group_worse(), model, 2, None).passed


def test_held_out(model: RegisteredModel) -> None:
    assert judge(gates.held_out(THREE, error, share=0.6), model, 2).passed
    result = judge(gates.held_out(THREE, error), model, 2)
    assert [(row.group, row.ok, row.candidate, row.current) for row in result.rows] == [
        ("DEU", True, 0.0, 1.0),
        ("FRA", True, 0.5, 1.0),
        ("ITA", False, 7.0, 1.0),
    ]
    assert not result.passed
    assert result.gate == "held_out(error, by=0)"
    assert judge(gates.held_out(lambda group: THREE[group], error, mode="max"), model, 2).rows[2].ok
    missing = judge(gates.held_out({"DEU": ([1.0], 2.0), "FRA": ("x", 2.0)}, error), model, 2)
    assert [(row.ok, row.note.partition(":")[0]) for row in missing.rows] == [
        (True, ""),
        (False, "TypeError"),
        (False, "no held-out data"),
    ]
    assert judge(gates.held_out(THREE, error), model, 2, None).passed


def other_metric(store: umbel.Store, record: dict[str, Any]) -> ModelVersion:  # noqa: F811
    """A version whose metric is not that of the others, and whose models answer nothing that can be scored."""
    renamed = {**record, "graph": {"nodes": [dict(node) for node in record["graph"]["nodes"]]}}
    sweep = renamed["graph"]["nodes"][1]
    sweep["sweep"] = {**sweep["sweep"], "metric": "mape"}
    add_run(store, renamed, "mape", models=[Scale(float("nan"))] * 3, metric="mape")
    return store.registry.register("mape", model="m")


@pytest.mark.parametrize("make", [gates.better_on_most, gates.no_group_worse])
def test_what_was_not_compared_does_not_pass(model: RegisteredModel, record: dict[str, Any], make: Any) -> None:  # noqa: F811
    store = umbel.Store(model.objects)
    without = other_metric(store, record)
    result = make()(model.version(2), without)
    assert (result.passed, result.rows) == (False, ())
    assert "no group could be compared" in result.note
    assert "version 4 has no metric 'mase'" in result.note
    model.set_alias("champion", 4)
    for per_group in (False, True):
        with pytest.raises(umbel.PromotionRefusedError, match="no group could be compared"):
            model.promote(2, gate=make(), per_group=per_group)


def test_scores_that_are_no_numbers_are_not_compared(model: RegisteredModel, record: dict[str, Any]) -> None:  # noqa: F811
    without = other_metric(umbel.Store(model.objects), record)
    for gate in (gates.held_out(THREE, error, share=0.5), gates.held_out(THREE, error)):
        result = gate(model.version(2), without)
        assert isinstance(result, gates.GateResult)
        assert not result.passed
        assert "no group could be compared" in result.note
    # where one of three can be compared, that one counts
    half = gates.held_out(THREE, lambda out, truth: error(out, truth) if out[0] != 1.0 else float("nan"), share=0.5)
    result = half(model.version(2), model.version(3))
    assert isinstance(result, gates.GateResult)
    assert (result.passed, result.note) == (False, "better in 0 of 1 group")


def test_latency_and_size(model: RegisteredModel) -> None:
    quick = judge(gates.max_latency_s(30.0), model, 2)
    assert quick.passed
    assert all(row.candidate is not None and row.candidate > 0 for row in quick.rows)
    assert not judge(gates.max_latency_s(1e-12, inputs=[1.0, 2.0]), model, 2).passed
    assert "TypeError" in judge(gates.max_latency_s(30.0, inputs=3), model, 2).rows[0].note
    size = model.version(2).size_bytes("DEU")
    assert judge(gates.max_size_bytes(size), model, 2).passed
    assert [row.ok for row in judge(gates.max_size_bytes(size - 1), model, 2).rows] == [False] * 3


def test_latency_without_an_example(record: dict[str, Any]) -> None:  # noqa: F811
    store = umbel.open_store(f"memory://{uuid4().hex}")
    add_run(store, record)
    version = store.registry.register("gdp", model="m")
    with pytest.raises(umbel.UsageError, match="inputs="):
        gates.max_latency_s(1.0)(version, None)


def test_a_metric_that_is_not_there(model: RegisteredModel) -> None:
    with pytest.raises(umbel.UsageError, match="did you mean 'mase'"):
        judge(gates.better_on_most("mas"), model, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: gates.better_on_most(share=2),
        lambda: gates.better_on_most(mode="least"),
        lambda: gates.no_group_worse(by=-1),
        lambda: gates.held_out({}, error, by=float("nan")),
        lambda: gates.held_out({}, error, share=-1),
        lambda: gates.max_latency_s(0),
        lambda: gates.max_size_bytes(-1),
    ],
)
def test_arguments_that_are_wrong(make: Any) -> None:
    with pytest.raises(umbel.UsageError):
        make()


def test_gates_by_name(model: RegisteredModel) -> None:
    assert judge(parse_gate("better-on-most"), model, 2).gate == "better_on_most('mase', share=0.5)"
    assert judge(parse_gate("no-group-worse:metric=mase,by=0.1"), model, 2).gate == "no_group_worse('mase', by=0.1)"
    assert judge(parse_gate("max-size-bytes:1e6"), model, 2).passed
    assert judge(parse_gate("max-latency-s:30"), model, 2).passed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("better-on-mots", "did you mean 'better-on-most'"),
        ("better-on-most:share=much", "share=much"),
        ("no-group-worse:0.1", r"no-group-worse:metric=…, by=…"),
        ("max-latency-s", "needs a number"),
    ],
)
def test_gates_that_are_not_understood(text: str, message: str) -> None:
    with pytest.raises(umbel.UsageError, match=message):
        parse_gate(text)


def test_public_names_are_documented() -> None:
    assert umbel.gates is gates
    for name in set(gates.__all__) - {"Gate"}:
        assert inspect.getdoc(getattr(gates, name)), name
    assert ModelVersion is umbel.ModelVersion
    with pytest.raises(AttributeError):
        gates.no_such_gate  # noqa: B018
