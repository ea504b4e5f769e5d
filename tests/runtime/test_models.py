"""Models of trials and tasks: few objects, and each found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from tests.bench.object_watch import watch_objects
from umbel.runtime.leases import running_lease, trial_lease
from umbel.scheduler.errors import NotFoundError, StoreCorruptError
from umbel.storage.runs.run import Run

SPACE = {"x": list(range(50))}


def run(fn: Any, tmp_path: Path, name: str = "models", **options: Any) -> Run:
    sweep = umbel.sweep(fn, space=SPACE, search="grid", over={"g": ["a", "b"]}, metric="loss", **options)
    return umbel.run(sweep, store=str(tmp_path), name=name, executor="inline", progress="quiet")


def small(config: dict[str, Any]) -> umbel.Result:
    return umbel.Result({"loss": config["x"]}, model=np.full(100, config["x"]))


def packs_of(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "artifacts" / "packs").iterdir())


def test_small_models_take_few_objects(tmp_path: Path) -> None:
    with watch_objects() as watch:
        done = run(small, tmp_path, keep="all")
    written = [path for path in watch.durable_at if path.startswith("artifacts/packs")]
    assert len(written) <= 2
    assert written == [path.relative_to(tmp_path).as_posix() for path in packs_of(tmp_path)]
    rows = done.trials().to_pylist()
    assert len({row["model"] for row in rows}) == 50  # equal content in both groups
    for row in rows:
        assert row["model_at"] is not None
        model: Any = done.load_model(row["model"])
        assert model.tolist() == [row["config_x"]] * 100
    assert done.models().num_rows == 100
    again = umbel.open_store(str(tmp_path)).run("models")
    assert [np.asarray(again.load_model(row["model"]))[0] for row in again.best().to_pylist()] == [0, 0]


def test_only_the_best_are_kept(tmp_path: Path) -> None:
    done = run(small, tmp_path)
    kept = [row["index"] for row in done.models().to_pylist()]
    assert {0, 50} <= set(kept)
    assert len(kept) < 50  # of each lease those that beat what came before
    assert len(packs_of(tmp_path)) == 1


def test_many_bytes_are_packed_where_they_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_lease, "REPORT_MODELS_LIMIT", 1)
    done = run(small, tmp_path, keep="all")
    assert all(np.asarray(done.load_model(row["model"]))[0] == row["config_x"] for row in done.trials().to_pylist())


@pytest.mark.parametrize("waiting", [0, 2**26])
def test_large_models_are_artifacts_of_their_own(waiting: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_lease, "WAITING_LIMIT_BYTES", waiting)
    length = 2**18 if waiting else 10

    def large(config: dict[str, Any]) -> umbel.Result:
        return umbel.Result({"loss": 1.0}, model=np.full(length, float(config["x"])))

    done = run(large, tmp_path, keep="all")
    rows = done.trials().to_pylist()
    assert {row["model_at"] for row in rows} == {None}
    assert not (tmp_path / "artifacts" / "packs").exists()
    assert all(np.asarray(done.load_model(row["model"]))[0] == row["config_x"] for row in rows[:5])


def test_models_of_tasks_are_packed(tmp_path: Path) -> None:
    @umbel.task
    def fit(x: int) -> umbel.Result:
        return umbel.Result(float(x), model={"x": x})

    nodes = fit.map(list(range(30)))
    done = umbel.run(nodes, store=str(tmp_path), name="tasks", executor="inline", progress="quiet")
    assert len(packs_of(tmp_path)) == 1
    models = done.models().to_pylist()
    assert [done.load_model(row["model"]) for row in models] == [{"x": x} for x in range(30)]
    assert done.value(nodes) == [float(x) for x in range(30)]


def test_a_model_that_is_gone_or_damaged(tmp_path: Path) -> None:
    done = run(small, tmp_path)
    digest = done.models()["model"][0].as_py()
    (pack,) = packs_of(tmp_path)
    data = pack.read_bytes()
    pack.write_bytes(bytes(len(data)))
    with pytest.raises(StoreCorruptError, match="damaged"):
        done.load_model(digest)
    pack.unlink()
    with pytest.raises(NotFoundError):
        done.load_model(digest)
    with pytest.raises(NotFoundError):
        done.load_model("0" * 64)


def test_a_resumed_run_finds_the_models_of_both_sittings(tmp_path: Path) -> None:
    sweep = umbel.sweep(small, space=SPACE, search="grid", over={"g": ["a", "b"]}, metric="loss", keep="all", name="s")
    for budget in ({"trials": 40}, None):
        done = umbel.run(sweep, store=str(tmp_path), name="two", executor="inline", progress="quiet", budget=budget)
    rows = done.trials().to_pylist()
    assert len(rows) == 100
    assert all(np.asarray(done.load_model(row["model"]))[0] == row["config_x"] for row in rows)
