"""A run as MLflow runs: one for the run, and under it one a trial, with params, metrics, tags and models.

By default the best trial of each group, since a tracking server takes some milliseconds for each. Models become MLflow
models that `mlflow.pyfunc.load_model` reads where umbel is installed. It must not know what a model is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umbel.scheduler.errors import UsageError
from umbel.storage.runs.run import Run
from umbel.storage.values.codecs import encode

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["TRIALS", "export"]

#: Which trials can be asked for.
TRIALS = ("best", "all")
#: Characters of a param or tag that MLflow takes.
VALUE_LIMIT = 500
#: Columns that become tags.
TAGS = ("trial", "seed", "attempt", "host", "worker", "code", "data", "key", "model", "reused_from")
STATUS = {"ok": "FINISHED", "pruned": "FINISHED"}


def export(
    run: Run,
    tracking_uri: str | None = None,
    *,
    experiment: str | None = None,
    trials: str = "best",
    models: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """Write a run to an MLflow tracking server; returns the id of the MLflow run that stands for it.

    Exporting again makes new MLflow runs.

    Args:
        run: the run.
        tracking_uri: of the server or folder; None: MLflow's own setting.
        experiment: its name; default: the run's.
        trials: "best", one a group, or "all".
        models: whether to log the models of these trials.
        progress: told how many trials are written, of how many.

    Raises:
        UsageError: MLflow is not installed, or ``trials`` is unknown.
    """
    if trials not in TRIALS:
        raise UsageError("unknown choice of trials", got=repr(trials), expected=" or ".join(map(repr, TRIALS)))
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise UsageError(
            "exporting to MLflow needs a package that is not installed",
            got="no mlflow",
            expected="the extra",
            hint="pip install 'umbel[mlflow]'",
        ) from None
    client = MlflowClient(tracking_uri)
    name = experiment or run.name
    found = client.get_experiment_by_name(name)
    experiment_id = client.create_experiment(name) if found is None else found.experiment_id
    parent = client.create_run(
        experiment_id, run_name=run.name, start_time=_ms(run.record.get("created")), tags=_run_tags(run)
    )
    parent_id = str(parent.info.run_id)
    rows = [
        (sweep, row)
        for sweep in run.sweeps
        for row in (run.best(sweep) if trials == "best" else run.trials(sweep)).to_pylist()
    ]
    for done, (sweep, row) in enumerate(rows):
        progress(done, len(rows))
        _export_trial(client, run, experiment_id, parent_id, sweep, row, with_model=models)
    progress(len(rows), len(rows))
    client.set_terminated(
        parent_id, {"done": "FINISHED", "running": "RUNNING", "failed": "FAILED"}.get(run.status, "KILLED")
    )
    return parent_id


def _run_tags(run: Run) -> dict[str, str]:
    record, git = run.record, run.record.get("git") or {}
    tags = {
        "umbel.run": run.id,
        "umbel.store": run.store_url,
        "mlflow.user": record.get("user"),
        "mlflow.source.name": " ".join(map(str, record.get("command") or ())),
        "mlflow.source.git.commit": git.get("commit"),
        "mlflow.source.git.branch": git.get("branch"),
        "umbel.environment": record.get("environment"),
        "umbel.source": record.get("source"),
    }
    return {key: str(value)[:VALUE_LIMIT] for key, value in tags.items() if value}


def _export_trial(
    client: MlflowClient,
    run: Run,
    experiment_id: str,
    parent_id: str,
    sweep: str,
    row: Mapping[str, Any],
    *,
    with_model: bool,
) -> None:
    from mlflow.entities import Metric, Param, RunTag

    record = run.graph.sweep(sweep)
    keys = {name: row[name] for name in record.group_names}
    label = ", ".join(map(str, keys.values()))
    began = _ms(row["started"])
    ended = began + round(1000 * (row["seconds"] or 0.0))
    made = client.create_run(
        experiment_id,
        run_name=f"{sweep}/{label}/{row['trial']}" if label else f"{sweep}/{row['trial']}",
        start_time=began,
        tags={"mlflow.parentRunId": parent_id, "umbel.run": run.id, "umbel.sweep": sweep},
    )
    run_id = str(made.info.run_id)
    params = {**keys, **{name[7:]: value for name, value in row.items() if name.startswith("config_")}}
    metrics = {name[7:]: value for name, value in row.items() if name.startswith("metric_") and value is not None}
    tags = {f"umbel.{name}": row[name] for name in TAGS if row.get(name) is not None}
    if row["error"]:
        tags["umbel.error"] = row["error"]
    client.log_batch(
        run_id,
        [Metric(name, float(value), ended, 0) for name, value in metrics.items()],
        [Param(name, str(value)[:VALUE_LIMIT]) for name, value in params.items() if value is not None],
        [RunTag(name, str(value)[:VALUE_LIMIT]) for name, value in tags.items()],
    )
    if with_model and row["model"]:
        _log_model(client, run_id, run.load_model(row["model"]))
    client.set_terminated(run_id, STATUS.get(row["status"], "FAILED"), end_time=ended)


def _log_model(client: MlflowClient, run_id: str, model: object) -> None:
    """Log a model in MLflow's own layout: a description beside the bytes."""
    from mlflow.models import Model

    from umbel.runtime.exports import mlflow_model

    described = Model(artifact_path="model", run_id=run_id)
    described.add_flavor("python_function", loader_module=mlflow_model.__name__, data=mlflow_model.FILE)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / mlflow_model.FILE).write_bytes(encode(model).data)
        described.save(str(Path(folder) / "MLmodel"))
        client.log_artifacts(run_id, folder, "model")


def _ms(time: datetime | str | None) -> int:
    if time is None:
        return 0
    moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    return round(moment.timestamp() * 1000)
