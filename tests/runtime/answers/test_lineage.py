"""What things were made from, and what was made from things, in runs of a graph with all kinds of arguments."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.csv
import pytest

import umbel
from tests.runtime.small_graphs import run
from umbel.scheduler.errors import NotFoundError, UsageError
from umbel.storage import layout
from umbel.storage.lineage.mentions import parse_mentions, scan_mentions
from umbel.storage.lineage.tree import Lineage
from umbel.storage.objects.interface import ObjectStore

COUNTRIES = ["AUT", "BRA", "CHL"]


@umbel.task
def part(sales: pa.Table, country: str) -> list[float]:
    return [row["value"] for row in sales.to_pylist() if row["country"] == country]


def fit(config: dict[str, Any], data: list[float]) -> umbel.Result:
    return umbel.Result({"loss": abs(config["level"] - data[0])}, model={"level": config["level"], "of": data})


@umbel.task
def refit(best: umbel.Best, data: list[float]) -> umbel.Result:
    return umbel.Result(best.value, model=("refitted", best.config, data))


@umbel.task
def report(values: list[float]) -> float:
    return sum(values)


def graph(folder: Path) -> umbel.Node:
    sales = umbel.read(folder / "sales.csv", name="sales")
    data = part.map(sales, COUNTRIES)
    sweep = umbel.sweep(
        fit,
        space={"level": [1, 2, 3, 4]},
        over={"country": COUNTRIES},
        data=data,
        search="grid",
        metric="loss",
        name="fit",
        keep="all",
    )
    return report.bind(refit.map(sweep.best(), data))


def write(folder: Path, values: list[float]) -> None:
    pyarrow.csv.write_csv(pa.table({"country": COUNTRIES, "value": values}), folder / "sales.csv")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> umbel.Run:
    """Two runs, the second with other data for CHL; the first one."""
    folder = tmp_path_factory.mktemp("lineage")
    write(folder, [1.0, 2.0, 3.0])
    first = run(graph(folder), folder / "store", name="first")
    write(folder, [1.0, 2.0, 4.0])
    run(graph(folder), folder / "store", name="second")
    return first


def names(found: Lineage) -> list[str]:
    return [thing.name for thing in found.walk()]


def test_a_trial(done: umbel.Run) -> None:
    found = done.lineage(5)
    assert found.kind == "trial"
    assert found.fact("country") == "BRA"
    (config,) = found.of_kind("config")
    assert dict(config.facts)["level"] == 2
    assert [thing.name for thing in found.of_kind("value")] == ["part[1]", "sales"]
    assert [thing.name for thing in found.of_kind("code")] == ["code of fit", "code of part", "code of sales"]
    (source,) = found.of_kind("source")
    assert source.name.endswith("sales.csv")
    assert source.fact("rows") == 3
    (environment,) = found.of_kind("environment")
    assert environment.digest == done.record["environment"]
    assert [thing.name for thing in found.of_kind("run")] == ["run first"]
    data = found.of_kind("value")[0]
    assert data.digest == done.trials()["data"][5].as_py()


def test_a_model_by_its_digest_leads_to_the_trial_that_was_chosen(done: umbel.Run) -> None:
    row = next(row for row in done.models("refit").to_pylist() if row["index"] == 2)
    for given in (row["model"], row["model"][:10]):
        found = done.lineage(given)
        assert (found.kind, found.digest) == ("model", row["model"])
        assert [thing.name for thing in found.of_kind("trial")] == ["trial 10 of fit"]
        assert "part[2]" in names(found)
        assert "part[1]" not in names(found)


@pytest.mark.parametrize("given", [7, {"sweep": "fit", "trial": 7}, "fit:7", {"node": "fit", "index": 7}])
def test_ways_to_name_a_trial(done: umbel.Run, given: object) -> None:
    assert done.lineage(given).name == "trial 7 of fit"


def test_nodes_and_elements(done: umbel.Run) -> None:
    best = done.value("fit-best")
    assert isinstance(best, list)
    assert done.lineage(best[1]).name == "trial 5 of fit"
    assert done.lineage("part:1").name == done.lineage(1, "part").name == "part[1]"
    assert done.lineage("part").name == "part × 3"
    assert done.lineage("report").fact("status") == "ok"
    whole = done.lineage()
    assert whole.kind == "run"
    assert "sweep fit × 12" in names(whole)
    assert whole.of_kind("source")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (99, NotFoundError),
        ("parts", NotFoundError),
        ("f" * 64, NotFoundError),
        (3.5, UsageError),
        ("part:9", NotFoundError),
    ],
)
def test_what_is_not_there(done: umbel.Run, given: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        done.lineage(given)


def test_shown_as_text_picture_page_and_data(done: umbel.Run) -> None:
    found = done.lineage("refit:0")
    text = found.text()
    assert text.splitlines()[0].startswith("refit[0]  ")
    assert "├─ " in text
    assert "see above" in text
    picture = ElementTree.fromstring(found.svg())
    assert picture.tag.endswith("svg")
    assert len(picture.findall(".//{*}rect")) == len(list(found.walk()))
    assert "<table>" in found.html()
    things = json.loads(json.dumps(found.as_dict(), default=str))["things"]
    assert things[0]["name"] == "refit[0]"
    assert all(number < len(things) for thing in things for number in thing["inputs"])


def test_a_long_chain(tmp_path: Path) -> None:
    @umbel.task
    def next_of(value: int) -> int:
        return value + 1

    node: Any = next_of.bind(0)
    for _ in range(100):
        node = next_of.bind(node)
    found = run(node, tmp_path).lineage("next_of-101")
    assert len(found.of_kind("value")) == 101


def test_a_long_chain_is_shown() -> None:
    found = Lineage("value", "0")
    for number in range(1, 3000):
        found = Lineage("value", str(number), inputs=(found,))
    assert len(found.text().splitlines()) == 3000
    assert found.svg().count("<rect") == 3000


def test_a_long_list_is_counted(tmp_path: Path) -> None:
    found = run(report.bind(umbel.task(lambda x: x * 0.5).map(range(100))), tmp_path).lineage("report")
    assert [thing.name for thing in found.of_kind("more")] == ["and 75 more of lambda"]


# ---- the other direction ---------------------------------------------------------------------------------------


def store_of(found: umbel.Run) -> umbel.Store:
    return umbel.open_store(found.store_url)


def test_data_of_one_group(done: umbel.Run) -> None:
    chile = done.elements("part")["digest"][2].as_py()
    found = store_of(done).downstream(chile)
    (use,) = found.uses
    assert (use.run, use.trials, use.models) == ("first", 4, 5)
    assert use.affected == {"part": [2], "fit": [2], "fit-best": [2], "refit": [2], "report": [0]}
    assert "data of fit, 1 group" in use.roles
    assert set(found.trials()["trial"].to_pylist()) == {8, 9, 10, 11}
    models = found.models().to_pylist()
    assert {row["node"] for row in models} == {"fit", "refit"}
    assert {row["country"] for row in models} == {"CHL"}
    austria = store_of(done).downstream(done.elements("part")["digest"][0].as_py())
    assert austria.runs == ["second", "first"]
    assert "value of part[0]" in austria.text()


def test_raw_data_reach_everything(done: umbel.Run) -> None:
    raw = done.elements("sales")["digest"][0].as_py()
    (use,) = store_of(done).downstream(raw).uses
    assert (use.trials, use.models) == (12, 15)


def test_code_and_its_functions(done: umbel.Run) -> None:
    store = store_of(done)
    entry = next(entry for entry in done.record["graph"]["nodes"] if entry["name"] == "refit")
    found = store.downstream(entry["code"])
    assert found.runs == ["second", "first"]
    assert [(use.trials, use.models) for use in found.uses] == [(0, 3), (0, 3)]
    helper = next(digest for part, digest in entry["code_parts"].items() if part.endswith("refit"))
    assert store.downstream(helper[:8]).runs == ["second", "first"]
    assert store.downstream(done.record["environment"]).uses[0].trials == 12


def test_what_nobody_used(done: umbel.Run) -> None:
    found = store_of(done).downstream("0" * 64)
    assert found.runs == []
    assert found.trials().num_rows == found.models().num_rows == 0
    assert "nothing" in found.text()
    with pytest.raises(UsageError, match="no digest"):
        store_of(done).downstream("first")


class Level:
    """A model that can be asked."""

    def __init__(self, level: float) -> None:
        self.level = level

    def predict(self, inputs: list[float]) -> list[float]:
        return [self.level for _ in inputs]


def fit_level(config: dict[str, Any], data: list[float]) -> umbel.Result:
    return umbel.Result({"loss": abs(config["level"] - data[0])}, model=Level(config["level"]))


@umbel.task
def refit_level(best: umbel.Best, data: list[float]) -> umbel.Result:
    return umbel.Result({"loss": best.value / 2, "rows": len(data)}, model=Level(data[0]))


@pytest.fixture
def registered(tmp_path: Path) -> umbel.Run:
    """A run whose winners are version 1 of `level`, and whose refitted models are version 2."""
    write(tmp_path, [1.0, 2.0, 3.0])
    data = part.map(umbel.read(tmp_path / "sales.csv", name="sales"), COUNTRIES)
    sweep = umbel.sweep(
        fit_level,
        space={"level": [1, 2]},
        over={"country": COUNTRIES},
        data=data,
        search="grid",
        metric="loss",
        name="fit",
    )
    made = run(refit_level.map(sweep.best(), data), tmp_path / "store", name="levels")
    registry = umbel.open_store(made.store_url).registry
    registry.register(made, model="level")
    registry.register(made, model="level", models="refit_level")
    return made


def test_registered_versions_are_made_of_data_too(registered: umbel.Run) -> None:
    store = store_of(registered)
    chile = registered.elements("part")["digest"][2].as_py()
    model = store.registry.model("level")
    model.set_alias("champion", 1)
    model.promote(2, groups=["BRA"], trust=True)
    found = store.downstream(chile)
    assert found.uses[0].versions == ("level version 1", "level version 2", "level version 3")
    assert "registered: level version 1, level version 2, level version 3" in found.text()
    refit = next(entry for entry in registered.record["graph"]["nodes"] if entry["name"] == "refit_level")
    assert store.downstream(refit["code"]).uses[0].versions == ("level version 2", "level version 3")
    assert store.downstream("0" * 64).uses == ()


def test_metrics_of_refitted_models_are_their_own(registered: umbel.Run) -> None:
    model = store_of(registered).registry.model("level")
    trials, refits = (model.version(number).table() for number in (1, 2))
    assert trials["metric_loss"].to_pylist() == [0.0, 0.0, 1.0]
    assert refits["metric_loss"].to_pylist() == [0.0, 0.0, 0.5]
    assert refits["metric_rows"].to_pylist() == [1.0, 1.0, 1.0]
    assert "metric_rows" not in trials.column_names
    assert model.version(2).metric == "loss"


def test_registered_versions_outlive_their_runs(registered: umbel.Run) -> None:
    store = store_of(registered)
    rows = store.registry.model("level").version(1).table().to_pylist()
    shutil.rmtree(Path(store.url) / "runs" / "levels")
    (use,) = store.downstream(rows[2]["data"]).uses
    assert (use.run, use.trials, use.models) == ("levels", 0, 2)
    assert use.versions == ("level version 1", "level version 2")
    assert use.roles == ("data in level version 1", "data in level version 2")
    assert store.downstream(rows[2]["model"]).uses[0].versions[0] == "level version 1"
    assert store.downstream(rows[2]["data"]).trials().num_rows == 0


def written(found: umbel.Run) -> dict[str, list[int]] | None:
    """What the run wrote at its end of what it mentions."""
    objects = ObjectStore.open(found.store_url)
    path = layout.mentions(found.id, found.record["created"])
    parsed = parse_mentions(objects.read(path)) if objects.exists(path) else None
    return None if parsed is None else {name: column.tolist() for name, column in parsed.columns.items()}


def scanned(found: umbel.Run) -> dict[str, list[int]]:
    """What its segments say of that."""
    parsed = scan_mentions(ObjectStore.open(found.store_url), found.record)
    return {name: column.tolist() for name, column in parsed.columns.items()}


def test_segments_say_the_same_as_what_is_written_at_the_end(done: umbel.Run) -> None:
    assert written(done) == scanned(done)


def test_a_resumed_run_mentions_all(tmp_path: Path) -> None:
    write(tmp_path, [1.0, 2.0, 3.0])
    stopped = run(graph(tmp_path), tmp_path / "store", name="both", budget={"trials": 5})
    assert stopped.status == "stopped"
    assert written(stopped) is None
    assert store_of(stopped).downstream(stopped.elements("sales")["digest"][0].as_py()).runs == ["both"]
    finished = run(graph(tmp_path), tmp_path / "store", name="both")
    assert written(finished) == scanned(finished)


def test_groups_that_the_run_revealed(tmp_path: Path) -> None:
    countries = umbel.task(lambda: COUNTRIES, name="countries").bind()
    sweep = umbel.sweep(
        lambda config: 1.0, space={"x": [1, 2]}, over={"country": countries}, search="grid", metric="loss", name="fit"
    )
    found = run(sweep, tmp_path)
    (use,) = store_of(found).downstream(found.elements("countries")["digest"][0].as_py()).uses
    assert use.trials == 6
    assert written(found) == scanned(found)


def test_what_was_not_run_did_not_fail(tmp_path: Path) -> None:
    @umbel.task
    def breaks(x: int) -> int:
        raise ValueError(x)

    @umbel.task
    def follows(x: int) -> int:
        return x

    sweep = umbel.sweep(lambda config, data: 1.0, space={"x": [1.0]}, data=breaks.bind(1), search="grid", metric="m")
    for node, name in ((follows.map(breaks.map([1])), "follows:0"), (sweep, "0")):
        found = run(node, tmp_path, name=f"r-{name[0]}").lineage(int(name) if name.isdecimal() else name)
        assert dict(found.facts)["status"] == "not run"
        assert "failed" in {dict(each.facts).get("status") for each in found.inputs}


def test_models_that_trials_share_are_counted_once(tmp_path: Path) -> None:
    def same(config: dict[str, Any], data: int) -> umbel.Result:
        return umbel.Result(config["x"], model={"always": "the same"})

    sweep = umbel.sweep(
        same, space={"x": [1.0, 2.0, 3.0]}, data=[7], search="grid", metric="m", keep="all", name="same"
    )
    one, two = run(sweep, tmp_path, name="one"), run(sweep, tmp_path, name="two")
    digest = one.trials()["data"][0].as_py()
    found = store_of(two).downstream(digest)
    assert [use.models for use in found.uses] == [1, 1]
    assert found.text().startswith(f"{digest[:12]}: 2 runs, 6 trials, 1 model\n")
    assert "→  3 trials, 1 model" in found.text()
