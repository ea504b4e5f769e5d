"""Promoting versions: gates, evidence, groups that stay, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.storage.registered import Broken, Scale, add_run
from umbel.runtime.production import gates
from umbel.scheduler.errors import (
    NotFoundError,
    PromotionRefusedError,
    StoreConflictError,
    UntrustedError,
    UsageError,
)
from umbel.storage.layout import artifact
from umbel.storage.registry.model_version import ModelVersion
from umbel.storage.registry.registered_model import RegisteredModel
from umbel.storage.store import Store, open_store


@pytest.fixture
def store(any_store: Store) -> Store:
    return any_store


@pytest.fixture
def model(store: Store, record: dict[str, Any]) -> RegisteredModel:
    """Version 1 is champion; version 2 is better in DEU and FRA and worse in ITA; version 3 is worse in all."""
    add_run(store, record, "first", models=[Scale(1.0)] * 3, metrics=(0.5, 0.5, 0.5))
    add_run(store, record, "second", models=[Scale(2.0)] * 3, metrics=(0.1, 0.2, 0.9))
    add_run(store, record, "third", models=[Scale(3.0)] * 3, metrics=(0.6, 0.7, 0.8))
    for run in ("first", "second", "third"):
        store.registry.register(run, model="m", inputs=[1.0])
    model = store.registry.model("m")
    model.promote(1, trust=True)
    return model


def test_a_promotion_keeps_its_evidence(model: RegisteredModel) -> None:
    first = model.resolve()
    assert (first.version, first.previous, first.gates) == (1, None, ("smoke test",))
    moved = model.promote(2, gate=gates.better_on_most(share=0.6), why="better", trust=True)
    assert (moved.version, moved.previous, moved.action, moved.why) == (2, 1, "promote", "better")
    assert moved.gates == ("smoke test", "better_on_most('mase', share=0.6)")
    evidence = model.evidence(moved)
    assert evidence is not None
    rows = [row for row in evidence.to_pylist() if row["gate"] != "smoke test"]
    assert [(row["group"], row["ok"], row["candidate"], row["current"]) for row in rows] == [
        ("DEU", True, 0.1, 0.5),
        ("FRA", True, 0.2, 0.5),
        ("ITA", False, 0.9, 0.5),
    ]
    assert all(row["passed"] and not row["kept"] for row in rows)
    assert model.promote(2).number == moved.number
    assert model.rollback().version == 1


def test_what_fails_is_shown_in_a_table(model: RegisteredModel) -> None:
    with pytest.raises(PromotionRefusedError) as refused:
        model.promote(
            2, gate=[gates.better_on_most(), gates.no_group_worse(by=0.5), gates.max_size_bytes(10)], trust=True
        )
    text = str(refused.value)
    assert "better_on_most" not in text
    assert [(row["gate"], row["group"]) for row in refused.value.failed] == [
        ("no_group_worse('mase', by=0.5)", "ITA"),
        *(("max_size_bytes(10)", group) for group in ("DEU", "FRA", "ITA")),
    ]
    lines = [line.split() for line in text.splitlines()]
    assert ["no_group_worse('mase',", "by=0.5)", "ITA", "0.9", "0.5"] in lines
    assert "no group passes; 'champion' stays at version 1" in text
    assert model.resolve().version == 1


def test_advice_where_a_promotion_is_refused(model: RegisteredModel) -> None:
    with pytest.raises(PromotionRefusedError, match="per_group=True"):
        model.promote(2, gate=gates.no_group_worse(by=0.5), trust=True)
    with pytest.raises(PromotionRefusedError, match="'new' points to no version yet") as refused:
        model.promote(2, "new", gate=gates.max_size_bytes(10), per_group=True, trust=True)
    assert "per_group" not in str(refused.value)


def test_groups_that_are_worse_keep_their_model(model: RegisteredModel) -> None:
    moved = model.promote(2, gate=gates.no_group_worse(by=0.0), per_group=True, trust=True)
    assert moved.version == 4
    made = model.version("champion")
    assert made.record["composed_of"] == [1, 2]
    rows = {row["group"]: row for row in made.table().to_pylist()}
    assert {group: (row["run"], row["registered"]) for group, row in rows.items()} == {
        "DEU": ("second", 2),
        "FRA": ("second", 2),
        "ITA": ("first", 1),
    }
    assert made.predict("ITA", [1.0], trust=True) == [1.0]
    assert made.predict("DEU", [1.0], trust=True) == [2.0]
    assert made.lineage("ITA").of_kind("run")[0].name == "run first"
    assert made.schema == model.version(2).schema
    assert made.smoke == [1.0]
    evidence = model.evidence(moved)
    assert evidence is not None
    assert {row["group"] for row in evidence.to_pylist() if row["kept"]} == {"ITA"}
    assert model.rollback().version == 1
    # put together once more, of a version that was put together
    again = model.promote(4, groups=["ITA"], trust=True)
    assert again.version == 5
    assert [row["registered"] for row in model.version(5).table().to_pylist()] == [1, 1, 1]


def test_all_or_no_groups(model: RegisteredModel) -> None:
    with pytest.raises(PromotionRefusedError, match="all groups keep") as refused:
        model.promote(3, gate=gates.no_group_worse(by=0.0), per_group=True, trust=True)
    assert len(refused.value.failed) == 3
    assert model.versions() == [1, 2, 3]
    assert model.promote(2, gate=gates.no_group_worse(by=9.0), per_group=True, trust=True).version == 2
    with pytest.raises(UsageError, match="without a gate"):
        model.promote(1, per_group=True)


def test_some_groups_only(model: RegisteredModel) -> None:
    moved = model.promote(2, groups=[{"country": "FRA"}], trust=True)
    rows = model.version(moved.version).table().to_pylist()
    assert sorted((row["group"], row["run"]) for row in rows) == [("DEU", "first"), ("FRA", "second"), ("ITA", "first")]
    with pytest.raises(NotFoundError, match="FRX"):
        model.promote(3, groups=["FRX"], trust=True)


def test_groups_of_a_new_alias_are_refused(model: RegisteredModel) -> None:
    with pytest.raises(UsageError, match="'pilot' of 'm' is new"):
        model.promote(2, "pilot", groups=["FRA"], trust=True)
    with pytest.raises(NotFoundError, match="FRX"):
        model.promote(2, "pilot", groups=["FRX"], trust=True)
    wrong: list[Any] = [[], "FRA"]
    for groups in wrong:
        with pytest.raises(UsageError, match="list of groups"):
            model.promote(2, groups=groups, trust=True)
    assert model.aliases() == {"champion": 1}


def test_names_are_checked_where_the_alias_is_there_already(model: RegisteredModel) -> None:
    with pytest.raises(NotFoundError, match="FRX"):
        model.promote(1, groups=["FRX"])
    with pytest.raises(UsageError, match="did you mean 'mase'"):
        model.promote(1, gate=gates.no_group_worse("mas"))
    assert model.promote(1, gate=gates.no_group_worse("mase"), groups=["FRA"]).version == 1


def test_only_groups_that_move_are_judged(model: RegisteredModel) -> None:
    seen: list[tuple[list[str], list[str]]] = []

    def look(candidate: ModelVersion, current: ModelVersion | None) -> bool:
        assert current is not None
        seen.append((candidate.groups, current.groups))
        return True

    moved = model.promote(2, groups=["DEU"], gate=[gates.no_group_worse(by=0.0), look], trust=True)
    assert seen == [(["DEU"], ["DEU"])]
    runs = {row["group"]: row["run"] for row in model.version(moved.version).table().to_pylist()}
    assert runs == {"DEU": "second", "FRA": "first", "ITA": "first"}
    evidence = model.evidence(moved)
    assert evidence is not None
    judged = [row for row in evidence.to_pylist() if row["gate"].startswith("no_group_worse")]
    assert [(row["group"], row["kept"]) for row in judged] == [("DEU", False)]
    assert {row["group"] for row in evidence.to_pylist() if row["kept"]} == {"FRA", "ITA"}
    with pytest.raises(PromotionRefusedError, match="ITA"):
        model.promote(2, groups=["FRA", "ITA"], gate=gates.no_group_worse(by=0.0), trust=True)


def test_a_new_group_moves_only_if_it_may(store: Store, record: dict[str, Any], model: RegisteredModel) -> None:
    model.set_alias("small", only(store, record, "DEU"))
    moved = model.promote(2, "small", groups=["FRA"], trust=True)
    assert model.version(moved.version).groups == ["FRA", "DEU"]

    def not_italy(candidate: ModelVersion, current: ModelVersion | None) -> pa.Table:
        return pa.table({"group": candidate.groups, "ok": [group != "ITA" for group in candidate.groups]})

    moved = model.promote(2, "small", gate=not_italy, per_group=True, trust=True)
    assert sorted(model.version(moved.version).groups) == ["DEU", "FRA"]


def only(store: Store, record: dict[str, Any], group: str) -> int:
    """The number of a version with one group."""
    fewer = {**record, "graph": {"nodes": [dict(node) for node in record["graph"]["nodes"]]}}
    sweep = fewer["graph"]["nodes"][1]
    sweep["sweep"] = {**sweep["sweep"], "groups": [[group]]}
    sweep["size"] = 4
    add_run(store, fewer, "fewer", metrics=(0.1,))
    return store.registry.register("fewer", model="m", inputs=[1.0]).number


def test_a_refused_promotion_leaves_no_version(
    model: RegisteredModel, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: Scale, inputs: list[float]) -> list[float]:
        if self.by == 1.0:
            raise ZeroDivisionError("no answer")
        return [self.by * value for value in inputs]

    monkeypatch.setattr(Scale, "predict", breaks)
    with pytest.raises(PromotionRefusedError, match=r"smoke test of the models that stay +DEU .*no answer"):
        model.promote(2, groups=["FRA"], trust=True)
    assert model.versions() == [1, 2, 3]


def test_latest_is_never_what_a_promotion_put_together(model: RegisteredModel, store: Store) -> None:
    def slow(candidate: ModelVersion, current: ModelVersion | None) -> bool:
        store.registry.model("m").promote(3, trust=True)
        return True

    with pytest.raises(StoreConflictError):
        model.promote(2, groups=["FRA"], gate=slow, trust=True)
    assert model.versions()[-1] == 4  # it lost the race for the alias, and nothing points to it
    assert model.version("latest").number == 3
    assert model.version(4).record["composed_of"] == [1, 2]


def test_gates_of_ones_own(model: RegisteredModel) -> None:
    seen: list[tuple[int, int | None]] = []

    def by_hand(candidate: ModelVersion, current: ModelVersion | None) -> pa.Table:
        seen.append((candidate.number, None if current is None else current.number))
        return pa.table({"group": candidate.groups, "ok": [True, True, False], "note": ["", "", "not liked"]})

    with pytest.raises(PromotionRefusedError, match=r"by_hand +ITA .*not liked"):
        model.promote(2, gate=by_hand, trust=True)
    assert seen == [(2, 1)]
    with pytest.raises(PromotionRefusedError, match="lambda"):
        model.promote(2, gate=lambda candidate, current: False, trust=True)
    assert model.promote(2, gate=lambda candidate, current: True, trust=True).version == 2
    for wrong in (lambda candidate, current: None, lambda candidate, current: pa.table({"x": [1]}), "better"):
        with pytest.raises(UsageError, match=r"no evidence|no gate"):
            model.promote(1, gate=wrong, trust=True)  # type: ignore[arg-type]


def says(**columns: Any) -> Any:
    return lambda candidate, current: pa.table(columns)


def test_gates_name_groups_as_everybody_does(model: RegisteredModel) -> None:
    by_key = [{"country": country} for country in ("DEU", "FRA", "ITA")]
    with pytest.raises(PromotionRefusedError, match="ITA"):
        model.promote(2, gate=says(group=by_key, ok=[True, True, False]), trust=True)
    for per_group in (False, True):
        with pytest.raises(NotFoundError, match="which the gate '<lambda>' judges, has no group of this name"):
            model.promote(2, gate=says(group=["zz"], ok=[True]), per_group=per_group, trust=True)
    result = gates.GateResult("mine", True, (gates.GroupEvidence("zz", False),))
    with pytest.raises(NotFoundError, match="zz"):
        model.promote(2, gate=lambda candidate, current: result, trust=True)
    assert model.aliases() == {"champion": 1}


def test_groups_that_a_gate_does_not_judge_do_not_move(
    store: Store, record: dict[str, Any], model: RegisteredModel
) -> None:
    some = says(group=["FRA"], ok=[True])
    with pytest.raises(UsageError, match="says nothing about 2 of 3 groups") as refused:
        model.promote(2, gate=some, trust=True)
    assert "DEU, ITA" in str(refused.value)
    with pytest.raises(UsageError, match="says nothing about 2 of 3 groups"):
        model.promote(2, "new", gate=some, per_group=True, trust=True)
    with pytest.raises(UsageError, match="says nothing about 3 of 3 groups"):
        model.promote(2, gate=says(group=pa.array([], pa.string()), ok=pa.array([], pa.bool_())), trust=True)
    moved = model.promote(2, gate=some, per_group=True, trust=True)
    runs = {row["group"]: row["run"] for row in model.version(moved.version).table().to_pylist()}
    assert runs == {"DEU": "first", "FRA": "second", "ITA": "first"}
    evidence = model.evidence(moved)
    assert evidence is not None
    silent = [row["group"] for row in evidence.to_pylist() if "says nothing" in (row["note"] or "")]
    assert silent == ["DEU", "ITA"]
    model.set_alias("small", only(store, record, "DEU"))  # of the groups that only the candidate has, FRA is judged
    moved = model.promote(2, "small", gate=some, per_group=True, trust=True)
    assert sorted(model.version(moved.version).groups) == ["DEU", "FRA"]
    # only groups that may move need be judged, and what is said of others does not count
    both = says(group=["FRA", "ITA"], ok=[True, False])
    assert model.promote(2, groups=["FRA"], gate=both, trust=True).action == "promote"


def test_what_a_gate_says_is_checked(model: RegisteredModel) -> None:
    groups = ["DEU", "FRA", "ITA"]
    for ok in (["no", "no", "no"], [0.5, 1.0, 1.0], [1, 2, 1]):
        with pytest.raises(UsageError, match=r"the column ok .* is not boolean"):
            model.promote(2, gate=says(group=groups, ok=ok), trust=True)
    with pytest.raises(UsageError, match="hold no numbers"):
        model.promote(2, gate=says(group=groups, ok=[1, 1, 1], candidate=["a", "b", "c"]), trust=True)
    answers = [
        gates.GateResult("mine", "no"),  # type: ignore[arg-type]
        gates.GateResult("mine", True, (gates.GroupEvidence("DEU", "no"),)),  # type: ignore[arg-type]
        gates.GateResult("mine", True, ({"group": "DEU", "ok": True},)),  # type: ignore[arg-type]
    ]
    while answers:
        with pytest.raises(UsageError, match="neither true nor false"):
            model.promote(2, gate=lambda candidate, current: answers.pop(), trust=True)
    with pytest.raises(PromotionRefusedError, match="FRA"):
        model.promote(2, gate=says(group=groups, ok=[1, 0, None]), trust=True)
    with pytest.raises(PromotionRefusedError, match="lambda"):
        model.promote(2, gate=lambda candidate, current: np.bool_(False), trust=True)
    assert model.promote(2, gate=lambda candidate, current: np.bool_(True), trust=True).version == 2


def test_a_gate_that_raises_is_named(model: RegisteredModel) -> None:
    def broken(candidate: ModelVersion, current: ModelVersion | None) -> bool:
        raise ZeroDivisionError("by hand")

    with pytest.raises(UsageError, match=r"the gate 'broken' failed on version 2 of 'm'; nothing was moved") as raised:
        model.promote(2, gate=broken, trust=True)
    assert "ZeroDivisionError: by hand" in str(raised.value)
    with pytest.raises(UsageError, match="'<lambda>' can't be asked about version 2"):
        model.promote(2, gate=lambda candidate: True)  # type: ignore[arg-type, misc]
    assert model.resolve().version == 1


def test_gates_are_judged_where_the_alias_is_there_already(model: RegisteredModel) -> None:
    gate = gates.better_on_most(share=0.6)
    moved = model.promote(2, gate=gate, trust=True)
    assert model.promote(2, gate=gate).number == moved.number  # it is better than the one that it replaced
    for per_group in (False, True):
        with pytest.raises(PromotionRefusedError, match="points to version 2 already, and stays"):
            model.promote(2, gate=gates.max_size_bytes(1), per_group=per_group)
    assert model.resolve() == moved


def test_a_version_that_does_not_answer_is_not_promoted(
    tmp_path: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path / "store"))
    add_run(store, record)
    version = store.registry.register("gdp", model="m", inputs=[1.0])
    model = store.registry.model("m")
    with pytest.raises(UntrustedError, match="trust=True"):
        model.promote(1)
    monkeypatch.setattr(Scale, "predict", Broken.predict)
    with pytest.raises(PromotionRefusedError, match=r"smoke test +DEU .*ZeroDivisionError: no answer"):
        model.promote(1, trust=True)
    monkeypatch.undo()
    path = Path(store.url) / artifact(version.digest("FRA"))
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(PromotionRefusedError, match=r"smoke test +FRA .*damaged") as refused:
        model.promote(1, trust=True)
    assert [row["group"] for row in refused.value.failed] == ["FRA"]
    assert refused.value.hint == "restore the artifact from a copy"
    assert path.name in str(refused.value.failed[0]["note"])
    assert model.aliases() == {}


def test_without_an_example_digests_are_compared(tmp_path: Path, record: dict[str, Any]) -> None:
    store = open_store(str(tmp_path / "store"))
    add_run(store, record)
    version = store.registry.register("gdp", model="m")
    model = store.registry.model("m")
    path = Path(store.url) / artifact(version.digest("FRA"))
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"!")
    with pytest.raises(PromotionRefusedError, match=r"digests +FRA .*damaged"):
        model.promote(1)
    path.write_bytes(good)
    assert model.promote(1).gates == ("digests",)  # nothing was loaded, so nothing asked for trust


def test_what_does_not_exist(model: RegisteredModel) -> None:
    with pytest.raises(NotFoundError, match="no such version"):
        model.promote(9)
    with pytest.raises(NotFoundError, match="no such alias"):
        model.promote("challenger")
    with pytest.raises(UsageError, match="name of a model alias"):
        model.promote(1, "../champion")


def test_another_promotes_meanwhile(model: RegisteredModel, store: Store) -> None:
    def slow(candidate: ModelVersion, current: ModelVersion | None) -> bool:
        store.registry.model("m").promote(3, why="mine first", trust=True)
        return True

    with pytest.raises(StoreConflictError, match=r"version 3 by .*mine first"):
        model.promote(2, gate=slow, trust=True)
    assert model.resolve().version == 3


def test_groups_that_would_be_lost(store: Store, record: dict[str, Any], model: RegisteredModel) -> None:
    only(store, record, "DEU")
    with pytest.raises(PromotionRefusedError, match="no model of this group"):
        model.promote(4, gate=gates.no_group_worse(), trust=True)
    with pytest.warns(UserWarning, match="no models of 2 groups of the one that it replaces: FRA, ITA"):
        model.promote(4, trust=True)
    model.rollback()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved = model.promote(4, gate=gates.no_group_worse(), per_group=True, trust=True)
    assert sorted(model.version(moved.version).groups) == ["DEU", "FRA", "ITA"]
