"""Credentials in spaces, arguments, errors and output don't reach the store."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ray import tune

import umbel
from tests.runtime.small_graphs import run
from umbel.runtime.provenance.credentials import hidden_values
from umbel.runtime.search.spaces import to_space
from umbel.scheduler.errors import UsageError

PLANTED = "pl4nted-s3cret"
URL = f"postgresql://ada:{PLANTED}@db.example/sales"


def trial(config: dict[str, Any]) -> float:
    assert config["api_key"] == PLANTED
    assert config["source"]["url"] == URL
    print("connecting to", URL)
    print("with", config["api_key"], os.environ["SALES_DB_PASSWORD"])
    if config["x"] == 2:
        raise ConnectionError(f"{URL} does not answer to {config['api_key']}")
    return float(config["x"])


@umbel.task
def refit(best: umbel.Best, token: str) -> str:
    print("refitting with", token)
    assert token == PLANTED
    assert best.config["api_key"] == "<redacted>"
    return "fitted"


def contents(store: Path) -> dict[str, str]:
    """All that is in a store, by path, unpacked."""
    found = {}
    for path in store.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            text = data.decode(errors="replace")
            if path.suffix == ".parquet":
                for row in pq.read_table(path).to_pylist():
                    payload = row.get("payload")
                    text += repr(row) + (repr(pickle.loads(payload)) if payload and payload[:1] == b"\x80" else "")
            elif path.suffix == ".zip":
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    text += "".join(archive.read(name).decode() for name in archive.namelist())
            found[str(path.relative_to(store))] = text
    return found


def test_nothing_planted_is_found_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALES_DB_PASSWORD", f"{PLANTED}-too")
    sweep = umbel.sweep(
        trial,
        space={"x": [1, 2, 3], "api_key": PLANTED, "source": {"url": URL, "table": ["a", "b"]}},
        search="grid",
        metric="loss",
        name="search",
    )
    found = run(refit.map(sweep.best(), token=PLANTED), tmp_path)
    assert found.value("refit") == ["fitted"]
    assert set(found.trials("search")["config_api_key"].to_pylist()) == {"<redacted>"}
    assert set(found.trials("search")["config_source_table"].to_pylist()) == {"a", "b"}
    assert "does not answer" in found.failures()["error"][0].as_py()
    assert found.output(0) == "connecting to postgresql://ada:<redacted>@db.example/sales\nwith <redacted> <redacted>\n"
    assert found.output(0, "refit") == "refitting with <redacted>\n"
    here = Path(__file__).read_text()
    for path, text in contents(tmp_path).items():
        assert PLANTED not in text.replace(here, ""), path  # the code itself is kept as it is


def test_another_credential_is_the_same_run(tmp_path: Path) -> None:
    for token in ("one", "two"):
        sweep = umbel.sweep(lambda config: 1.0, space={"x": [1], "token": token}, search="grid", metric="loss")
        assert run(sweep, tmp_path).status == "done"


def test_numbers_and_plain_names_are_no_credentials() -> None:
    space = to_space({"token": tune.uniform(0, 1), "auth": [True, False], "optimizer": ["adam"], "n": {"token": 3}})
    assert not hidden_values(space)
    config = {"token": 0.5}
    assert hidden_values(space).config(config) is config


def test_what_is_hidden_is_named_and_leaves_the_config_as_it_was() -> None:
    hidden = hidden_values(to_space({"db": {"password": ["a", "b"], "user": "ada"}, "x": [1]}))
    assert hidden.names == ["db.password"]
    config = {"db": {"password": "a", "user": "ada"}, "x": 1}
    assert hidden.config(config) == {"db": {"password": "<redacted>", "user": "ada"}, "x": 1}
    assert config["db"] == {"password": "a", "user": "ada"}


def test_credentials_can_not_be_groups() -> None:
    with pytest.raises(UsageError, match="credential"):
        umbel.sweep(lambda config: 1.0, space={"x": [1]}, over={"api_key": ["a", "b"]}, metric="loss", trials=1)
