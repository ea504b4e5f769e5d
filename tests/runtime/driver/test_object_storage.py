"""Runs on object storage: what will not pass is said before the first trial, and an outage ends in one error."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import umbel
from tests.faulty_proxy import faulty_proxy
from tests.seaweedfs import S3Server
from tests.storage.objects.test_s3_faults import closed_port
from umbel.scheduler.errors import StoreError, StoreUnavailableError
from umbel.storage import store
from umbel.storage.objects import interface as objects
from umbel.storage.objects import retries

pytestmark = pytest.mark.ray


def run(trial: Any, server: S3Server, url: str, **options: Any) -> umbel.Run:
    sweep = umbel.sweep(trial, space={"x": list(range(40))}, search="grid", metric="loss", keep="all", name="s")
    given = {**server.storage_options, **options}
    return umbel.run(sweep, store=url, storage_options=given, name="job", executor="inline", progress="quiet")


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"key": "nobody"}, "AWS_ACCESS_KEY_ID"),
        ({"secret": "wrong"}, "AWS_SECRET_ACCESS_KEY"),
        ({"endpoint_url": "closed"}, "AWS_ENDPOINT_URL"),
        ({"url": "s3://no-such-bucket/x"}, "make its bucket"),
    ],
    ids=["key", "secret", "endpoint", "bucket"],
)
def test_what_will_not_pass_is_said_before_the_first_trial(
    s3_server: S3Server, changed: Mapping[str, str], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (objects, store):
        monkeypatch.setattr(module, "FIRST_CONTACT_S", 0.3)
    options: dict[str, Any] = dict(changed)
    if "endpoint_url" in options:
        options["endpoint_url"] = f"http://127.0.0.1:{closed_port()}"
    ran = []

    def trial(config: dict[str, Any]) -> float:
        ran.append(config)
        return 1.0

    with pytest.raises(StoreError) as caught:
        run(trial, s3_server, options.pop("url", s3_server.url(uuid4().hex)), **options)
    assert word in str(caught.value)
    assert ran == []


def test_an_outage_ends_in_one_error_and_the_run_goes_on_afterwards(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "RetryPolicy", functools.partial(retries.RetryPolicy, limit_s=0.5))
    url, outage = s3_server.url(uuid4().hex), tmp_path / "outage"

    def trial(config: dict[str, Any]) -> umbel.Result:
        if config["x"] == 20 and not outage.with_name("over").exists():
            outage.touch()
        return umbel.Result({"loss": float(config["x"])}, model=[config["x"]])

    with faulty_proxy(s3_server, rate=0.0, outage=outage) as (_, through):
        with pytest.raises(StoreUnavailableError) as caught:
            run(trial, through, url)
        for words in ("SlowDown", "tries within", "run the same command again"):
            assert words in str(caught.value)
        outage.rename(outage.with_name("over"))
        done = run(trial, through, url)
        assert done.status == "done"
        assert [row["config_x"] for row in done.trials().to_pylist()] == list(range(40))
        assert [done.load_model(row["model"]) for row in done.trials().to_pylist()] == [[x] for x in range(40)]
