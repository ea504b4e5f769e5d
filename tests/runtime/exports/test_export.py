"""Runs handed on to OpenLineage and MLflow, read back with their own means."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray import tune

import umbel
from umbel.runtime.cli.app import main
from umbel.runtime.exports.mlflow import export
from umbel.runtime.exports.openlineage import client, events


class Doubler:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def predict(self, values: list[float]) -> list[float]:
        return [self.factor * value for value in values]


def fit(config: dict[str, Any], data: pa.Table) -> umbel.Result:
    if config["x"] > 0.9:
        raise ValueError("too much")
    return umbel.Result({"loss": config["x"], "rows": data.num_rows}, model=Doubler(config["x"]))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    pq.write_table(pa.table({"a": [1, 2, 3]}), folder / "data.parquet")
    sweep = umbel.sweep(
        fit,
        space={"x": tune.uniform(0, 1)},
        over={"country": ["A", "B"]},
        data=umbel.read(str(folder / "data.parquet"), name="table"),
        trials=20,
        metric="loss",
        name="s",
    )
    umbel.run(sweep, store=str(folder / "store"), name="gdp", executor="inline", progress="quiet")
    return folder / "store"


@pytest.fixture
def run(store: Path) -> umbel.Run:
    return umbel.open_store(str(store)).run("gdp")


# ---- OpenLineage -----------------------------------------------------------------------------------------------


def as_dicts(run: umbel.Run, file: Path) -> list[dict[str, Any]]:
    sender = client(file=str(file))
    for event in events(run):
        sender.emit(event)
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_each_node_starts_and_ends_under_its_run(run: umbel.Run, tmp_path: Path) -> None:
    found = as_dicts(run, tmp_path / "events.jsonl")
    assert [(each["job"]["name"], each["eventType"]) for each in found] == [
        ("gdp", "START"),
        ("gdp.table", "START"),
        ("gdp.table", "COMPLETE"),
        ("gdp.s", "START"),
        ("gdp.s", "COMPLETE"),
        ("gdp", "COMPLETE"),
    ]
    whole, table, sweep = (found[at]["run"]["runId"] for at in (0, 2, 4))
    assert len({whole, table, sweep}) == 3
    assert found[4]["run"]["facets"]["parent"]["run"]["runId"] == whole
    assert found[5]["run"]["runId"] == whole
    assert [each["eventTime"] for each in found] == sorted(each["eventTime"] for each in found)


def test_data_are_followed_from_file_to_trials(run: umbel.Run, tmp_path: Path) -> None:
    found = as_dicts(run, tmp_path / "events.jsonl")
    (source,) = found[2]["inputs"]
    assert source["name"].endswith("data.parquet")
    digest = run.elements("table")["digest"][0].as_py()
    assert source["facets"]["version"]["datasetVersion"] == digest
    (values,) = found[2]["outputs"]
    assert values["name"] in [each["name"] for each in found[4]["inputs"]]
    (trials,) = found[4]["outputs"]
    assert trials["name"] == "runs/gdp/trials/s"
    assert trials["outputFacets"]["outputStatistics"]["rowCount"] == 40
    names = [field["name"] for field in trials["facets"]["schema"]["fields"]]
    assert names == run.trials().column_names
    assert "failed; the first: ValueError: too much" in found[4]["run"]["facets"]["errorMessage"]["message"]


def test_sending_it_again_sends_the_same_run(run: umbel.Run, tmp_path: Path) -> None:
    one, two = (as_dicts(run, tmp_path / name) for name in ("one", "two"))
    assert [each["run"]["runId"] for each in one] == [each["run"]["runId"] for each in two]


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An HTTP server that takes events, and what it was given."""
    taken: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(201)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", taken
    server.shutdown()
    thread.join()
    server.server_close()


def test_by_http(store: Path, endpoint: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch) -> None:
    url, taken = endpoint
    monkeypatch.setattr("sys.argv", ["umbel", "export", "openlineage", "gdp", "--store", str(store), "--url", url])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    assert [each["eventType"] for each in taken] == ["START", "START", "COMPLETE", "START", "COMPLETE", "COMPLETE"]


def test_events_that_would_go_nowhere_are_refused(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENLINEAGE_URL", raising=False)
    monkeypatch.setattr("sys.argv", ["umbel", "export", "openlineage", "gdp", "--store", str(store)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--url" in capsys.readouterr().err


# ---- MLflow ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "mlruns").as_uri()


def children(tracking: str, parent: str) -> list[Any]:
    from mlflow import MlflowClient

    reader = MlflowClient(tracking)
    experiment = reader.get_run(parent).info.experiment_id
    return list(reader.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=1000))


def test_the_best_trials(run: umbel.Run, tracking: str) -> None:
    from mlflow import MlflowClient

    parent = export(run, tracking)
    whole = MlflowClient(tracking).get_run(parent)
    assert whole.info.status == "FINISHED"
    assert whole.info.run_name == "gdp"
    assert whole.data.tags["umbel.store"] == run.store_url
    found = {each.data.params["country"]: each for each in children(tracking, parent)}
    for row in run.best().to_pylist():
        made = found.pop(row["country"])
        assert made.data.metrics == {"loss": row["metric_loss"], "rows": 3.0}
        assert float(made.data.params["x"]) == row["config_x"]
        assert made.data.tags["umbel.key"] == row["key"]
        assert made.data.tags["umbel.seed"] == str(row["seed"])
        assert made.info.status == "FINISHED"
        assert made.info.start_time == round(row["started"].timestamp() * 1000)
    assert not found


def test_models_are_loaded_by_mlflow(run: umbel.Run, tracking: str) -> None:
    import mlflow

    parent = export(run, tracking)
    mlflow.set_tracking_uri(tracking)
    made = children(tracking, parent)[0]
    model = mlflow.pyfunc.load_model(f"{made.info.artifact_uri}/model")
    assert model.predict([1.0, 2.0]) == [made.data.metrics["loss"], 2 * made.data.metrics["loss"]]


def test_all_trials_and_what_failed(run: umbel.Run, tracking: str) -> None:
    told: list[tuple[int, int]] = []
    parent = export(run, tracking, trials="all", models=False, progress=lambda *how_far: told.append(how_far))
    made = children(tracking, parent)
    assert len(made) == 40
    assert told[-1] == (40, 40)
    failed = [each for each in made if each.info.status == "FAILED"]
    assert len(failed) == run.failures().num_rows > 0
    assert "too much" in failed[0].data.tags["umbel.error"]


def test_what_is_unknown(run: umbel.Run) -> None:
    with pytest.raises(umbel.UsageError, match="unknown choice"):
        export(run, trials="some")
