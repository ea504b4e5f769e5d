"""The executors give the same results, those that the graph means; and Ray is used as it is found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray

import umbel
from tests.runtime.small_graphs import a_sweep
from tests.runtime.wide_graph import COUNTRIES, LARGE, WideGraph
from umbel.runtime.leases.values import INLINE_LIMIT_BYTES
from umbel.scheduler.errors import ElementFailedError, ExecutorError, StoreError

pytestmark = pytest.mark.ray

#: What may differ between two runs of one graph.
WHERE_AND_WHEN = ["started", "seconds", "host", "worker", "model_at"]


Done = tuple[WideGraph, umbel.Run]


@pytest.fixture(scope="module")
def both(two_processors: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """The wide graph, run by each executor."""
    done: dict[str, Done] = {}
    for executor in ("inline", "ray"):
        folder = tmp_path_factory.mktemp(executor)
        (folder / "tries").mkdir()
        graph = WideGraph(str(folder / "tries"))
        store = str(folder / "store")
        done[executor] = graph, umbel.run(graph.targets, store=store, name="wide", executor=executor, progress="quiet")
    return done


@pytest.fixture(params=["inline", "ray"])
def wide(request: pytest.FixtureRequest, both: dict[str, Done]) -> Done:
    """The wide graph and its run by one of the executors."""
    return both[request.param]


def trials(done: Done, name: str) -> list[dict[str, Any]]:
    graph, run = done
    rows: list[dict[str, Any]] = run.trials(graph.nodes[name]).to_pylist()
    return rows


def value(done: Done, name: str) -> Any:
    graph, run = done
    return run.value(graph.nodes[name])


# ---- the same results ------------------------------------------------------------------------------------------


def test_the_tables_are_equal(both: dict[str, Done]) -> None:
    (graph, inline), (_, on_ray) = both["inline"], both["ray"]
    assert inline.sweeps == on_ray.sweeps == [sweep.name for sweep in graph.sweeps.values()]
    for sweep in inline.sweeps:
        varying = [*WHERE_AND_WHEN, *(["model"] if sweep == "keep-best" else [])]  # that one depends on the worker
        left, right = inline.trials(sweep).drop_columns(varying), on_ray.trials(sweep).drop_columns(varying)
        assert left.schema == right.schema
        assert left.equals(right), sweep
        assert inline.best(sweep).drop_columns(WHERE_AND_WHEN).equals(on_ray.best(sweep).drop_columns(WHERE_AND_WHEN))


def test_the_values_and_models_are_equal(both: dict[str, Done]) -> None:
    (graph, inline), (_, on_ray) = both["inline"], both["ray"]
    for name, node in graph.nodes.items():
        if name not in graph.sweeps:
            left, right = (run.elements(node).drop_columns(WHERE_AND_WHEN) for run in (inline, on_ray))
            changes = ["digest", "key"] if name == "unlucky" else []  # its arguments name a folder of the run
            assert left.drop_columns(changes).equals(right.drop_columns(changes)), name
    models = [
        [row for row in run.models().to_pylist() if row["node"] != "keep-best"]  # that one's depend on the worker
        for run in (inline, on_ray)
    ]
    assert models[0] == models[1]
    assert len(models[0]) == 9 * 3 + 3 + 6


def test_the_failures_are_equal(both: dict[str, Done]) -> None:
    left, right = (run.failures().drop_columns(WHERE_AND_WHEN[:-1]) for _, run in both.values())
    assert left.equals(right)
    assert set(left.column("node").to_pylist()) == {"flaky"}


def test_rows_say_where_they_were_made(both: dict[str, Done]) -> None:
    assert {row["worker"] for row in trials(both["inline"], "fan-out")} == {"inline"}
    on_ray = {row["worker"] for name in both["ray"][0].sweeps for row in trials(both["ray"], name)}
    assert len(on_ray) > 1
    assert all(worker.startswith("w") for worker in on_ray)


# ---- tasks -----------------------------------------------------------------------------------------------------


def test_arguments(wide: Done) -> None:
    letters = [[2.0 * ord(letter) + 0.5 for letter in country] for country in COUNTRIES]
    sums = [sum(row) for row in letters]
    assert value(wide, "data") == letters
    assert value(wide, "sums") == sums
    assert value(wide, "halves") == [each / 2 for each in sums]
    assert value(wide, "all") == pytest.approx(sum(sums))
    assert value(wide, "zipped") == [
        f"{(country, i + 1, i)} {[('left', 'whole'), ('right', np.float64(i + 1.5))]}"
        for i, country in enumerate(COUNTRIES)
    ]
    assert value(wide, "whole") == f"{(letters, 'a', [1, 2])} {[('key', sums)]}"
    assert value(wide, "nothing") == []
    assert value(wide, "of nothing") == "([],) []"


def test_a_task_is_tried_again(wide: Done) -> None:
    graph, run = wide
    assert value(wide, "unlucky") == [1, 2]
    assert run.elements(graph.nodes["unlucky"]).column("attempt").to_pylist() == [2, 2]
    assert [Path(graph.tries, name).read_text() for name in ("1", "2")] == ["triedtried"] * 2


@pytest.mark.parametrize("name", ["arrays", "frames", "tables"])
def test_large_values_become_artifacts(wide: Done, name: str) -> None:
    graph, run = wide
    rows = run.elements(graph.nodes[name]).to_pylist()
    assert all(row["size"] > INLINE_LIMIT_BYTES for row in rows)
    assert all(Path(run.store_url, "artifacts", row["digest"]).stat().st_size == row["size"] for row in rows)


def test_large_values_are_what_they_were(wide: Done) -> None:
    arrays, frames, tables = (value(wide, name) for name in ("arrays", "frames", "tables"))
    for seed, array, frame, table in zip((1, 2), arrays, frames, tables, strict=True):
        expected = np.random.default_rng(seed).normal(size=LARGE)
        np.testing.assert_array_equal(array, expected)
        names = [f"row {i}" for i in range(LARGE)]
        pd.testing.assert_frame_equal(frame, pd.DataFrame({"value": expected, "name": names}))
        assert isinstance(table, pa.Table)
        assert table.column_names == ["value", "name"]
        np.testing.assert_array_equal(table.column("value").to_numpy(), expected)
    assert value(wide, "rows") == 2 * LARGE


# ---- sweeps ----------------------------------------------------------------------------------------------------


def test_data_of_each_group(wide: Done) -> None:
    for row in trials(wide, "fan-out"):
        first = 2.0 * ord(row["country"][0]) + 0.5
        assert row["metric_first"] == first
        assert row["metric_loss"] == abs(row["config_alpha"] - first / 100)
    assert [row["metric_loss"] / row["config_alpha"] for row in trials(wide, "list")] == pytest.approx(
        [1, 1, 1, 2, 2, 2, 3, 3, 3]
    )
    assert [row["metric_loss"] / row["config_alpha"] for row in trials(wide, "value")] == pytest.approx([7] * 9)
    everything = value(wide, "all")
    assert [row["metric_loss"] / row["config_alpha"] for row in trials(wide, "node")] == pytest.approx([everything] * 3)


def test_lineage_of_each_trial(wide: Done) -> None:
    graph, run = wide
    digests = run.elements(graph.nodes["data"]).column("digest").to_pylist()
    rows = trials(wide, "fan-out")
    assert [row["data"] for row in rows] == [digest for digest in digests for _ in range(9)]
    assert len({row["key"] for row in rows}) == len({row["seed"] for row in rows}) == len(rows) == 27
    assert len({row["code"] for row in rows}) == 1
    assert [row["trial"] for row in rows] == list(range(27))
    assert {row["data"] for row in trials(wide, "context")} == {None}


def test_the_best_of_each_group(wide: Done) -> None:
    graph, run = wide
    rows = trials(wide, "fan-out")
    groups = [sorted(rows[start : start + 9], key=lambda row: row["metric_loss"]) for start in (0, 9, 18)]
    best = run.best(graph.nodes["fan-out"]).to_pylist()
    assert [row["trial"] for row in best] == [group[0]["trial"] for group in groups]
    for group, found in zip(groups, value(wide, "top"), strict=True):
        assert [each.trial for each in found] == [row["trial"] for row in group[:3]]
        for each, row in zip(found, group, strict=False):
            assert each.group == {"country": row["country"]}
            assert each.config == {"alpha": row["config_alpha"], "country": row["country"]}
            assert each.metrics == {"loss": row["metric_loss"], "first": row["metric_first"]}
            assert (each.value, each.seed, each.model) == (row["metric_loss"], row["seed"], row["model"])
    most = max(trials(wide, "node"), key=lambda row: row["metric_loss"])
    assert run.best("node").column("trial").to_pylist() == [most["trial"]]


def test_nested_spaces_on_a_grid(wide: Done) -> None:
    rows = trials(wide, "nested")
    assert len(rows) == 3 * 2 * 4
    assert [(row["country"], row["year"]) for row in rows[::4]] == [(c, y) for c in COUNTRIES for y in (2000, 2001)]
    assert [row["config_net_depth"] for row in rows[:4]] == [1, 1, 2, 2]
    assert [row["config_flag"] for row in rows[:4]] == [None, "x", None, "x"]
    assert {row["config_constant"] for row in rows} == {"c"}
    best = wide[1].best("nested").to_pylist()
    assert [row["metric_gain"] for row in best] == [
        2 * year - (country == "FRA") + 1 for country in COUNTRIES for year in (2000, 2001)
    ]


def test_a_sweep_over_the_best_of_another(wide: Done) -> None:
    best = wide[1].best("with_data").to_pylist()
    rows = trials(wide, "again")
    for row in rows:
        alpha = best[row["trial"] // 5]["config_alpha"]
        assert row["metric_loss"] == abs(row["config_beta"] - alpha)
    assert [row["country"] for row in rows[::5]] == COUNTRIES


def test_retries(wide: Done) -> None:
    rows = trials(wide, "flaky")
    assert [row["status"] for row in rows] == ["ok", "ok", "failed", "failed"] * 2
    assert [row["attempt"] for row in rows] == [1, 3, 3, 1] * 2
    assert [row["metric_attempt"] for row in rows] == [1, 3, None, None] * 2
    assert [(row["error"] or "\n").splitlines()[-1] for row in rows[:4]] == [
        "",
        "",
        "TimeoutError: never well",
        "ValueError: not worth another try",
    ]


def test_what_a_trial_knows_of_itself(wide: Done) -> None:
    rows = trials(wide, "context")
    assert [row["metric_loss"] for row in rows] == list(range(12))
    assert [row["metric_seed"] for row in rows] == [row["seed"] for row in rows]
    assert {row["metric_attempt"] for row in rows} == {1.0}


def test_reports(wide: Done) -> None:
    rows = trials(wide, "reports")
    assert [row["status"] for row in rows] == ["ok"] * 4
    assert [row["metric_loss"] for row in rows] == [8.0, 1.0, 8.0, 5.0]
    assert [row["metric_steps"] for row in rows] == [2.0] * 4
    assert [row["metric_extra"] for row in rows] == [None, None, 2.0, None]


# ---- models ----------------------------------------------------------------------------------------------------


def test_models_that_are_kept(wide: Done) -> None:
    _, run = wide
    for row in trials(wide, "keep-all"):
        assert run.load_model(row["model"]) == f"model {row['trial']}"
    assert {row["model"] for row in trials(wide, "keep-none")} == {None}
    kept = [row for row in trials(wide, "keep-best") if row["model"] is not None]
    assert kept[-1]["trial"] == 5  # the best one's is there, wherever it ran
    assert all(run.load_model(row["model"]) == f"model {row['trial']}" for row in kept)
    (best,) = run.best("keep-best").to_pylist()
    assert best["model"] == kept[-1]["model"]


def test_models_of_tasks(wide: Done) -> None:
    graph, run = wide
    models = run.models(graph.nodes["models"]).to_pylist()
    assert [(row["index"], row["country"]) for row in models] == list(enumerate(COUNTRIES))
    best = run.best(graph.nodes["fan-out"]).to_pylist()
    for row, model, fitted in zip(best, models, value(wide, "models"), strict=True):
        config = {"alpha": row["config_alpha"], "country": row["country"]}
        assert run.load_model(model["model"]) == {"config": config, "trial": row["trial"]}
        assert fitted["loss"] == row["metric_loss"]
    elements = run.elements(graph.nodes["models"])
    assert elements.column("metric_loss").to_pylist() == [row["metric_loss"] for row in best]


# ---- Ray -------------------------------------------------------------------------------------------------------


def test_a_ray_that_is_up_is_used_and_left_up(both: dict[str, Done], tmp_path: Path) -> None:
    assert ray.is_initialized()
    job = ray.get_runtime_context().get_job_id()
    run = umbel.run(a_sweep(trials=50), store=str(tmp_path), name="again", workers=1, progress="quiet")
    assert {row["worker"] for row in run.trials().to_pylist()} == {"w1"}
    assert ray.get_runtime_context().get_job_id() == job
    assert ray.get(ray.remote(num_cpus=2)(lambda: True).remote(), timeout=20)  # the workers have given room


def test_a_finished_run_needs_no_ray(both: dict[str, Done], monkeypatch: pytest.MonkeyPatch) -> None:
    graph, run = both["ray"]
    monkeypatch.setattr("umbel.runtime.driver.run.RayExecutor", None)
    again = umbel.run(graph.targets, store=run.store_url, name="wide", progress="quiet")
    assert again.status == "done"
    for sweep in run.sweeps:
        assert again.trials(sweep).equals(run.trials(sweep))


def test_what_fits_on_no_node(two_processors: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umbel.runtime.executors.ray_executor.GIVE_UP_S", 0.5)  # no node will come

    @umbel.task(cpus=64)
    def greedy(x: int) -> int:
        return x

    with pytest.raises(ExecutorError, match="no node of the Ray cluster can hold a worker") as caught:
        umbel.run(greedy.bind(1), store=str(tmp_path), name="greedy", progress="quiet")
    assert caught.value.got == "1 nodes; missing: CPU 64 (largest node: 2)"
    assert caught.value.expected == "a node with CPU 64"
    assert "lower the task's cpus" in (caught.value.hint or "")


def test_a_store_of_this_process_only(two_processors: None) -> None:
    with pytest.raises(StoreError, match="lives in this process only") as caught:
        umbel.run(a_sweep(), store="memory://here", name="search", progress="quiet")
    assert 'executor="inline"' in (caught.value.hint or "")
    assert umbel.run(a_sweep(), store="memory://here", name="search", executor="inline").status == "done"


class NeedsModule:
    """Pickles here, and can't be unpickled elsewhere."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"import os\nif os.getpid() != {os.getpid()}: import a_module_that_is_missing",)

    def __call__(self, x: int) -> int:
        return x


@pytest.mark.parametrize("position", ["first", "later"])
def test_a_worker_that_can_not_load_what_it_needs(two_processors: None, position: str, tmp_path: Path) -> None:
    fine = umbel.task(name="fine")(lambda: 1)
    node = umbel.task(name="needs")(NeedsModule()).bind(1 if position == "first" else fine.bind())
    with pytest.raises(ExecutorError, match="a worker can't do its work") as caught:
        umbel.run(node, store=str(tmp_path), name="needs", progress="quiet")
    assert "No module named 'a_module_that_is_missing'" in (caught.value.got or "")


def test_an_element_that_fails(two_processors: None, tmp_path: Path) -> None:
    @umbel.task
    def fails(x: int) -> int:
        if x == 1:
            raise ValueError("boom")
        return x

    node = fails.map([0, 1, 2])
    run = umbel.run(node, store=str(tmp_path), name="fails", progress="quiet")
    assert run.status == "done"
    with pytest.raises(ElementFailedError, match=r"(?s)1 of 3 elements of the node 'fails'.*ValueError: boom"):
        run.value(node)
