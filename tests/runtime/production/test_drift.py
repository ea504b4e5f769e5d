"""What is served against what a model was trained on: profiles, fields of inputs, verdicts, the command."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.runtime.served_log import START, log_split
from tests.storage.conftest import record as record  # noqa: PLC0414 - a fixture
from tests.storage.registered import Scale, add_run
from umbel.runtime.cli import app as cli
from umbel.runtime.production.drift import drift, profile
from umbel.scheduler.errors import NotFoundError, StoreConflictError, StoreCorruptError, UsageError
from umbel.scheduler.statistics.distributions import Categories, Numbers
from umbel.storage import layout
from umbel.storage.predictions.log import PredictionLog
from umbel.storage.registry.input_fields import fields_of_rows
from umbel.storage.registry.profiles import create_profile, read_profile
from umbel.storage.store import Store, open_store


@pytest.fixture
def served(tmp_path: Path, record: dict[str, Any]) -> Store:
    """A store with a version of a model that is the champion."""
    store = open_store(str(tmp_path / "store"))
    add_run(store, record, "one", models=[Scale(1.0)] * 3)
    store.registry.register("one", model="gdp")
    store.registry.model("gdp").set_alias("champion", 1)
    return store


def training(shift: float = 0.0, rows: int = 5_000) -> dict[str, Any]:
    """Training data like what `log_split` logs as inputs and answers."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal(rows) + shift
    return {"x": x, "kind": ["a", "b"] * (rows // 2), "y": x + rng.standard_normal(rows)}


def test_no_drift(served: Store) -> None:
    log_split(served.objects, 2_000)
    assert profile(training(), outputs="y").save("gdp", 1, store=served) == 1
    found = drift("gdp", store=served)
    assert not found.drifted
    assert {(field.of, field.field): field.verdict for field in found.fields} == {
        ("inputs", "kind"): "ok",
        ("inputs", "x"): "ok",
        ("outputs", "outputs"): "ok",
    }
    assert found.text().endswith("no drift in 3 fields")


def test_drift_of_inputs_and_outputs(served: Store) -> None:
    log_split(served.objects, 2_000)
    found = drift("gdp", store=served.url, against=profile(training(1.0), outputs="y"))
    assert {field.field: field.verdict for field in found.fields} == {"x": "drift", "kind": "ok", "outputs": "drift"}
    assert found.text().endswith("drift in 2 of 3 fields")
    assert json.dumps(found.as_dict())
    loose = drift("gdp", store=served, against=profile(training(1.0), outputs="y"), psi=9.0, ks=0.9)
    assert not loose.drifted


def test_fields_that_come_and_go(served: Store) -> None:
    log_split(served.objects, 1_000)
    found = drift("gdp", store=served, against={"x": np.zeros(50), "age": [1.0] * 50})
    verdicts = {field.field: field.verdict for field in found.fields}
    assert verdicts == {"x": "drift", "age": "gone", "kind": "new"}


def test_too_few_and_no_inputs(served: Store) -> None:
    assert drift("gdp", store=served, against=training()).text().endswith("not enough was served to tell")
    with PredictionLog(served.objects, "gdp", "r") as log:
        for i in range(20):
            log.add(str(i), group="DEU", version=1, arm="champion", output="5.0", inputs='{"x": 9}', time=START)
    found = drift("gdp", store=served, against={"x": training()["x"]})
    assert (found.drifted, found.fields[0].verdict) == (False, "too few")
    assert drift("gdp", store=served, against={"x": training()["x"]}, least=10).drifted
    with PredictionLog(served.objects, "gdp", "r") as log:
        for i in range(200):
            log.add(f"x{i}", group="DEU", version=2, arm="challenger", output="5.0", time=START)
    served.registry.register("one", model="gdp")
    without = drift("gdp", store=served, version=2, against=profile(training(), outputs="y"))
    assert [field.field for field in without.fields] == ["outputs"]
    assert "holds no inputs" in without.text()


def test_profiles_are_kept_and_never_change(served: Store) -> None:
    made = profile(training(), outputs="y")
    made.save("gdp", store=served)
    made.save("gdp", "champion", store=served)
    read = read_profile(served.objects, "gdp", 1)
    assert read == made.descriptions
    with pytest.raises(StoreConflictError, match="another one"):
        profile(training(1.0)).save("gdp", 1, store=served)
    with pytest.raises(NotFoundError):
        made.save("gdp", 7, store=served)
    served.registry.register("one", model="gdp")
    with pytest.raises(NotFoundError, match="has no profile"):
        drift("gdp", store=served, version=2)


def test_a_version_that_was_put_together_has_the_profile_of_its_parts(served: Store) -> None:
    model = served.registry.model("gdp")
    profile(training(), outputs="y").save("gdp", 1, store=served)
    served.registry.register("one", model="gdp")
    made = model.promote(2, groups=["DEU"], trust=True).version
    log_split(served.objects, 500, versions=(made, made))
    found = drift("gdp", store=served)
    assert (found.version, found.profile_of, found.drifted) == (3, 1, False)
    assert "against the training data of version 1" in found.text()
    profile(training(1.0), outputs="y").save("gdp", 2, store=served)  # that of the version that was promoted goes first
    assert drift("gdp", store=served).profile_of == 2


def test_a_profile_with_nothing_in_a_field_can_be_kept_twice(served: Store) -> None:
    made = profile({"x": pa.array([None, None], pa.float64())})
    assert math.isnan(made.descriptions.inputs["x"].mean)  # type: ignore[union-attr]
    made.save("gdp", store=served)
    made.save("gdp", store=served)


@pytest.mark.parametrize(
    "content",
    [
        {"format": 1},
        {"format": 1, "rows": 1, "inputs": {"x": 3}, "outputs": None},
        {"format": 1, "rows": 1, "inputs": [], "outputs": None},
        {"format": 1, "rows": 1, "inputs": {"x": {"kind": "numbers", "count": 1}}, "outputs": None},
    ],
)
def test_damaged_profiles_are_named(served: Store, content: dict[str, Any]) -> None:
    served.objects.create(layout.profile("gdp", 1), json.dumps(content).encode())
    with pytest.raises(StoreCorruptError, match="no profile"):
        read_profile(served.objects, "gdp", 1)


def test_what_a_profile_can_be_made_of() -> None:
    pandas = pytest.importorskip("pandas")
    columns = {"n": [1, 2, 3], "f": [1.0, None, 2.0], "c": ["a", None, "b"], "b": [True, False, True]}
    for table in (columns, pa.table(columns), pandas.DataFrame(columns)):
        found = profile(table).descriptions
        assert found.rows == 3
        kinds = {name: type(each) for name, each in found.inputs.items()}
        assert kinds == {"n": Numbers, "f": Numbers, "c": Categories, "b": Categories}
        assert found.inputs["f"].missing == pytest.approx(1 / 3)
    rows = [{"series": [1.0, 2.0, 3.0]}, {"series": [4.0]}]
    assert profile(rows).descriptions.inputs["series"].count == 4
    matrix = profile(np.arange(6.0).reshape(3, 2), outputs=np.array([1, 2, 3])).descriptions
    assert list(matrix.inputs) == ["0", "1"]
    assert matrix.outputs is not None
    assert matrix.outputs.count == 3
    with pytest.raises(UsageError, match="no such column"):
        profile(columns, outputs="y")
    with pytest.raises(UsageError, match="no table"):
        profile(3)


@pytest.mark.parametrize(
    ("rows", "fields"),
    [
        (['{"a": 1, "b": {"c": "x"}}'], {"a": [1], "b.c": ["x"]}),
        (['{"a": 1}', '{"b": 2}'], {"a": [1, None], "b": [None, 2]}),
        (['[{"a": 1}, {"a": 2}]'], {"a": [1, 2]}),
        (["[[1, 2], [3, 4]]"], {"0": [1, 3], "1": [2, 4]}),
        (["[1, 2]", "3"], {"inputs": [1, 2, 3]}),
        (['{"a": [1, 2]}'], {"a": [1, 2]}),
        (["not json", '"text"'], {"inputs": ["text"]}),
    ],
)
def test_fields_of_inputs(rows: list[str], fields: dict[str, list[Any]]) -> None:
    assert fields_of_rows(rows) == fields


def test_arguments_that_can_not_be_used(served: Store) -> None:
    for options in ({"psi": 0.0}, {"ks": 2.0}, {"alpha": 0.0}, {"least": 0}):
        with pytest.raises(UsageError, match="bars"):
            drift("gdp", store=served, against=training(), **options)


def test_stored_profiles_compare_like_new_ones(served: Store) -> None:
    log_split(served.objects, 500)
    made = profile(training(0.4), outputs="y")
    create_profile(served.objects, "gdp", 1, made.descriptions)
    assert drift("gdp", store=served).fields == drift("gdp", store=served, against=made).fields


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def umbel(served: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["umbel", *arguments, "--store", served.url])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return code if isinstance(code, int) else 0, out, err

    return command


def test_the_command(umbel: Command, served: Store, tmp_path: Path) -> None:
    log_split(served.objects, 1_000)
    status, _, err = umbel("drift", "gdp")
    assert (status, "has no profile" in err) == (2, True)
    path = str(tmp_path / "training.parquet")
    pq.write_table(pa.table(training()), path)
    status, out, _ = umbel("drift", "gdp", "--against", path, "--outputs", "y", "--save")
    assert (status, "no drift in 3 fields" in out) == (0, True)
    status, out, _ = umbel("drift", "gdp", "--json")
    assert (status, json.loads(out)["drifted"]) == (0, False)
    shifted = str(tmp_path / "shifted.parquet")
    pq.write_table(pa.table(training(1.0)), shifted)
    status, out, _ = umbel("drift", "gdp", "--against", shifted, "--outputs", "y")
    assert (status, "drift in 2 of 3 fields" in out) == (3, True)
    assert umbel("drift", "gdp", "--save")[0] == 2
    status, _, err = umbel("drift", "gdp", "--against", str(tmp_path / "nothing.parquet"))
    assert (status, "no such file" in err) == (2, True)
