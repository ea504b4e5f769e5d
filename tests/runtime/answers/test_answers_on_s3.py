"""Reading data, checkpoints and every question about a run, with all of it on a real S3 server."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.csv
import pytest

import umbel
from tests.seaweedfs import BUCKET, S3Server

pytestmark = pytest.mark.ray

COUNTRIES = ["AUT", "BRA"]


@umbel.task(retries=1)
def fit(config: dict[str, Any], sales: pa.Table) -> umbel.Result:
    done = umbel.trial().checkpoint
    if done is None:
        umbel.report(step=1, checkpoint={"epoch": 1})
        raise RuntimeError("not at once")
    loss = abs(config["level"] - sales["value"][0].as_py())
    if loss > 2:
        raise ValueError("too far")
    return umbel.Result(loss, model={"level": config["level"], "epoch": done["epoch"]})


def graph(server: S3Server, folder: str) -> umbel.Node:
    urls = [f"s3://{BUCKET}/{folder}-data/{country}.csv" for country in COUNTRIES]
    return umbel.sweep(
        fit,
        space={"level": [1, 2, 3, 4]},
        over={"country": COUNTRIES},
        data=umbel.read(urls, name="sales", storage_options=server.storage_options),
        search="grid",
        metric="loss",
        name="fit",
        keep="all",
    )


def write(server: S3Server, folder: str, country: str, value: float) -> None:
    files = fsspec.filesystem("s3", **server.storage_options)
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(pa.table({"value": [value]}), sink)
    files.pipe(f"{BUCKET}/{folder}-data/{country}.csv", sink.getvalue().to_pybytes())


def test_what_happened_in_this_run(s3_server: S3Server) -> None:
    folder = uuid4().hex
    options: dict[str, Any] = {
        "store": s3_server.url(folder),
        "storage_options": s3_server.storage_options,
        "executor": "inline",
        "progress": "quiet",
    }
    for country in COUNTRIES:
        write(s3_server, folder, country, 1.0)
    first = umbel.run(graph(s3_server, folder), name="first", **options)
    write(s3_server, folder, "BRA", 4.0)
    second = umbel.run(graph(s3_server, folder), name="second", fresh=True, **options)

    assert first.checkpoint(0) == {"epoch": 1}
    source = first.lineage(5).of_kind("source")[0]
    assert source.name.endswith("BRA.csv")
    assert "fit[" not in first.lineage(5).text()
    store = umbel.open_store(options["store"], s3_server.storage_options)
    brazil = second.elements("sales")["digest"][1].as_py()
    (use,) = store.downstream(brazil).uses
    assert (use.run, use.trials) == ("second", 4)
    austria = first.elements("sales")["digest"][0].as_py()
    assert sorted(store.downstream(austria).runs) == ["first", "second"]
    found = umbel.diff(first, second)
    assert found.summary == "differs: data of sales (country=BRA). Results are equal"
    assert found.data[0].details == (
        "country=BRA: column value: 1 of 1 values differ, largest difference 3 (at 0: 1 → 4)",
    )
    assert {cause.kind for cause in umbel.why_failed(first).causes} == {"ValueError"}
    replayed = second.replay(7)
    assert replayed.same_inputs
    assert not replayed.same
    assert "went on from a checkpoint" in replayed.text()
    keys = [object_path for object_path in store.objects.list(recursive=True) if not object_path.startswith("code/")]
    assert not [path for path in keys if s3_server.secret.encode() in store.objects.read(path)]
