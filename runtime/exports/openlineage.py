"""A run as OpenLineage events: https://openlineage.io, read by Marquez, DataHub, OpenMetadata and others.

A run is a job of its name, and each node is a job under it. Where data were read from are input datasets, what a node
stored (a sweep's trials, a fan-out's values) are datasets that later nodes take as inputs. Run ids follow from the
store's URL and the run's name, so sending a run again sends the same run. It must not know how events travel.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import NAMESPACE_URL, uuid5

import pyarrow as pa

from umbel.scheduler.errors import UsageError
from umbel.storage.layout import trials_folder, values_folder
from umbel.storage.runs.graph_record import NodeRecord
from umbel.storage.runs.run import Run

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, RunEvent
    from openlineage.client.event_v2 import Run as LineageRun

__all__ = ["client", "events"]

#: What made the events, as the standard wants it: a URI.
PRODUCER = "urn:umbel"

#: OpenLineage's transports that bring events to nobody: into a log that is not shown, or away.
_NOWHERE = ("console", "noop")


def client(url: str | None = None, file: str | None = None) -> OpenLineageClient:
    """Where events go: an HTTP endpoint, a file (one JSON object a line), or where OpenLineage's own variables say.

    Raises:
        UsageError: the package is not installed, or no place is given or configured.
    """
    _require()
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.file import FileConfig, FileTransport
    from openlineage.client.transport.http import HttpConfig, HttpTransport

    if file is not None:
        return OpenLineageClient(transport=FileTransport(FileConfig(log_file_path=file, append=True)))
    if url is not None:
        return OpenLineageClient(transport=HttpTransport(HttpConfig.from_dict({"url": url})))
    found = OpenLineageClient()
    if found.transport.kind in _NOWHERE:
        raise UsageError(
            "nothing says where events go",
            got=f"OpenLineage's {found.transport.kind} transport",
            expected="an endpoint or a file",
            hint="--url http://marquez:5000, or --file events.jsonl, or set OPENLINEAGE_URL",
        )
    return found


def events(run: Run, namespace: str = "umbel") -> Iterator[RunEvent]:
    """The events of a run: a start of it and of each node that began, and an end of those that have ended.

    Args:
        run: the run; of one that is going on, what there is so far.
        namespace: of the jobs.

    Raises:
        UsageError: the package is not installed.
        StoreError: the store can't be read.

    Cost: reading the run's rows without their values.
    """
    _require()
    return _Export(run, namespace).events()


def _require() -> None:
    try:
        import openlineage.client  # noqa: F401
    except ImportError:
        raise UsageError(
            "OpenLineage events need a package that is not installed",
            got="no openlineage-python",
            expected="the extra",
            hint="pip install 'umbel[openlineage]'",
        ) from None


class _Export:
    def __init__(self, run: Run, namespace: str) -> None:
        self._run = run
        self._namespace = namespace
        self._created = str(run.record.get("created"))
        self._store = f"{run.store_url}/runs/{run.id}"

    def events(self) -> Iterator[RunEvent]:
        status = self._run.status
        nodes = list(self._run.graph.nodes.values())
        yield self._event("START", self._created, None)
        last = self._created
        for node in nodes:
            rows = self._run.elements(node.name, ["status", "started", "seconds", "error", *_SOURCE])
            if not rows.num_rows:
                continue
            began, ended = _span(rows)
            last = max(last, ended)
            inputs, outputs = self._inputs(node, rows), self._outputs(node, rows)
            yield self._event("START", began, node, inputs=inputs)
            if node.size is not None and rows.num_rows >= node.size:
                failed = sum(each not in ("ok", "pruned") for each in rows["status"].to_pylist())
                state = "FAIL" if failed == rows.num_rows else "COMPLETE"
                yield self._event(state, ended, node, inputs=inputs, outputs=outputs, rows=rows)
        state = {"done": "COMPLETE", "running": "RUNNING", "failed": "FAIL"}.get(status, "ABORT")
        every = [dataset for node in nodes for dataset in self._outputs(node, None)]
        yield self._event(state, last, None, outputs=every)

    def _event(self, state: str, time: str, node: NodeRecord | None, **held: Any) -> RunEvent:
        from openlineage.client.event_v2 import RunEvent, RunState

        rows = held.pop("rows", None)
        return RunEvent(
            eventTime=time,
            run=self._lineage_run(node, rows),
            job=self._job(node),
            eventType=RunState[state],
            producer=PRODUCER,
            **held,
        )

    def _lineage_run(self, node: NodeRecord | None, rows: pa.Table | None) -> LineageRun:
        from openlineage.client.event_v2 import Run as LineageRun
        from openlineage.client.facet_v2 import error_message_run, parent_run, processing_engine_run

        versions = self._run.record.get("versions") or {}
        facets: dict[str, Any] = {
            "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
                version=str(versions.get("ray", "")),
                name="ray",
                openlineageAdapterVersion=str(versions.get("umbel", "")),
            )
        }
        if node is not None:
            facets["parent"] = parent_run.ParentRunFacet(
                run=parent_run.Run(runId=self._id(None)), job=parent_run.Job(self._namespace, self._run.name)
            )
        errors = [] if rows is None or "error" not in rows.column_names else rows["error"].drop_null().to_pylist()
        if errors:
            message = str(errors[0]).strip().rpartition("\n")[2]
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
                message=f"{len(errors)} failed; the first: {message}",
                programmingLanguage="python",
                stackTrace=errors[0],
            )
        return LineageRun(runId=self._id(node), facets=facets)

    def _id(self, node: NodeRecord | None) -> str:
        return str(uuid5(NAMESPACE_URL, f"{self._store}#{'' if node is None else node.name}"))

    def _job(self, node: NodeRecord | None) -> Job:
        from openlineage.client.event_v2 import Job
        from openlineage.client.facet_v2 import job_type_job, source_code_location_job

        kind = "DAG" if node is None else "TASK"
        facets: dict[str, Any] = {
            "jobType": job_type_job.JobTypeJobFacet(processingType="BATCH", integration="UMBEL", jobType=kind)
        }
        git = self._run.record.get("git") or {}
        if git.get("remote") and git.get("commit"):
            facets["sourceCodeLocation"] = source_code_location_job.SourceCodeLocationJobFacet(
                type="git", url=str(git["remote"]), version=str(git["commit"]), branch=git.get("branch")
            )
        name = self._run.name if node is None else f"{self._run.name}.{node.name}"
        return Job(self._namespace, name, facets)

    def _inputs(self, node: NodeRecord, rows: pa.Table) -> list[InputDataset]:
        from openlineage.client.event_v2 import InputDataset
        from openlineage.client.facet_v2 import dataset_version_dataset

        found = [InputDataset(self._run.store_url, self._folder(self._run.graph.nodes[name])) for name in node.inputs]
        if "source" in rows.column_names:
            for text in dict.fromkeys(rows["source"].drop_null().to_pylist()):
                described = json.loads(text)
                namespace, name = _place(str(described.get("url", "")))
                facets: dict[str, Any] = {}
                digests = rows.filter(pa.compute.equal(rows["source"], text))["digest"].to_pylist()
                if digests and digests[0]:
                    facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=digests[0])
                found.append(InputDataset(namespace, name, facets=facets))
        return found

    def _outputs(self, node: NodeRecord, rows: pa.Table | None) -> list[OutputDataset]:
        from openlineage.client.event_v2 import OutputDataset
        from openlineage.client.facet_v2 import output_statistics_output_dataset, schema_dataset

        facets: dict[str, Any] = {}
        statistics: dict[str, Any] = {}
        if rows is not None:
            columns = self._run.dataset(node.name).schema if node.sweep is not None else None
            if columns is not None:
                facets["schema"] = schema_dataset.SchemaDatasetFacet(
                    fields=[schema_dataset.SchemaDatasetFacetFields(each.name, str(each.type)) for each in columns]
                )
            statistics["outputStatistics"] = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                rowCount=rows.num_rows
            )
        return [OutputDataset(self._run.store_url, self._folder(node), outputFacets=statistics, facets=facets)]

    def _folder(self, node: NodeRecord) -> str:
        folder = trials_folder if node.sweep is not None else values_folder
        return folder(self._run.id, node.name)


#: Columns that tell where a value was read from, if it was.
_SOURCE = ("source", "digest")


def _span(rows: pa.Table) -> tuple[str, str]:
    """When the first began, and the last ended."""
    started, seconds = rows["started"].to_pylist(), rows["seconds"].to_pylist()
    spans = [
        (began.timestamp(), began.timestamp() + (taken or 0.0)) for began, taken in zip(started, seconds, strict=True)
    ]
    first, last = min(began for began, _ in spans), max(ended for _, ended in spans)
    return datetime.fromtimestamp(first, UTC).isoformat(), datetime.fromtimestamp(last, UTC).isoformat()


def _place(url: str) -> tuple[str, str]:
    """A URL as OpenLineage names datasets: the server or bucket, and the path in it."""
    parts = urlsplit(url)
    if not parts.scheme:
        return "file", url
    return f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/") or "/"
