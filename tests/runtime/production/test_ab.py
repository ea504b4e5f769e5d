"""Which of two served versions is better: what is compared, what is decided, what forbids a decision, promotion."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.served_log import START, log_shadow, log_split
from tests.storage.conftest import record as record  # noqa: PLC0414 - a fixture
from tests.storage.registered import Scale, add_run
from umbel.runtime.cli import app as cli
from umbel.runtime.production.ab import ab, compare
from umbel.runtime.production.ab_data import read_answers, split_up
from umbel.runtime.production.ab_promotion import promote
from umbel.runtime.production.ab_result import Comparison
from umbel.runtime.production.losses import find_loss
from umbel.runtime.production.served import record_outcomes
from umbel.scheduler.errors import NotFoundError, PromotionRefusedError, UsageError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.predictions.log import PredictionLog
from umbel.storage.predictions.reader import read_predictions
from umbel.storage.store import Store, open_store


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore.open(tmp_path / "store")


def compared(objects: ObjectStore, **options: Any) -> Comparison:
    rows = read_predictions(objects, "gdp", options.pop("since", None))
    return compare(rows, model="gdp", champion=("champion", 1), challenger=("challenger", 2), **options)


# ---- decisions -------------------------------------------------------------------------------------------------


def test_a_better_challenger(objects: ObjectStore) -> None:
    log_split(objects, 3_000, errors=(1.0, 0.6))
    found = compared(objects)
    assert (found.decision, found.design, found.unit) == ("promote", "unpaired", "request")
    assert found.champion.mean_loss == pytest.approx(1.0, abs=0.1)
    assert found.challenger.mean_loss == pytest.approx(0.36, abs=0.05)
    assert found.champion.n + found.challenger.n == 3_000
    assert found.low is not None
    assert found.high is not None
    assert found.low < -0.64 < found.high < 0
    assert found.p_value < 0.01
    assert found.shares is not None
    assert found.shares.ok
    assert found.shares.expected == pytest.approx(0.5)
    assert "challenger is better" in found.because[0]


def test_a_worse_one_an_equal_one_and_too_few(objects: ObjectStore) -> None:
    log_split(objects, 3_000, errors=(0.6, 1.0))
    assert compared(objects).decision == "keep"
    assert compared(objects, least=2_000).decision == "not yet"
    early = compared(objects, since=datetime.fromtimestamp(START + 2_900, UTC))
    assert early.decision == "not yet"
    assert "200 are needed" in early.because[0]


def test_equal_versions_stay_open(objects: ObjectStore) -> None:
    log_split(objects, 3_000)
    found = compared(objects)
    assert found.decision == "not yet"
    assert "it is open" in found.because[0]


def test_a_gain_that_is_asked_for(objects: ObjectStore) -> None:
    log_split(objects, 4_000, errors=(1.0, 0.6))
    assert compared(objects, gain=0.2).decision == "promote"
    found = compared(objects, gain=0.9)
    assert found.decision == "keep"
    assert "not better by so much" in found.because[0]


def test_shadows_are_compared_request_by_request(objects: ObjectStore) -> None:
    log_shadow(objects, 1_500, {"DEU": (1.0, 0.8)})
    found = compared(objects)
    assert (found.decision, found.design, found.shares) == ("promote", "paired", None)
    assert found.champion.n == found.challenger.n == 1_500
    with_split = compared(objects, design="unpaired")
    assert (with_split.decision, with_split.challenger.assigned) == ("not yet", 0)


def test_the_interval_is_what_the_rows_say(objects: ObjectStore) -> None:
    log_split(objects, 1_000, share=0.3)
    rows = read_predictions(objects, "gdp").to_pylist()
    losses = {
        version: np.array([(row["output_value"] - row["outcome"]) ** 2 for row in rows if row["version"] == version])
        for version in (1, 2)
    }
    found = compared(objects)
    assert found.difference == pytest.approx(losses[2].mean() - losses[1].mean())
    assert found.looks[-1].difference == pytest.approx(found.difference)
    assert found.looks[-1].low == pytest.approx(found.low)
    assert found.looks[-1].high == pytest.approx(found.high)


def test_only_the_two_versions_count(objects: ObjectStore) -> None:
    log_split(objects, 1_000)
    before = compared(objects)
    log_split(objects, 500, versions=(7, 8), errors=(9.0, 0.1), prefix="other", seed=1, start=START + 5_000)
    after = compared(objects)
    assert (after.difference, after.champion) == (before.difference, before.champion)


def test_what_the_champion_answered_beside_others_does_not_count(objects: ObjectStore) -> None:
    log_split(objects, 2_000, share=0.1, versions=(1, 3), errors=(5.0, 5.0), prefix="hard")
    log_split(objects, 4_000, share=0.1, errors=(1.0, 1.0), seed=1, start=START + 10_000)
    log_split(objects, 1_000, share=0.1, versions=(2, 2), errors=(5.0, 5.0), prefix="same", start=START + 20_000)
    found = compared(objects)
    assert found.champion.assigned + found.challenger.assigned == pytest.approx(
        4_000, abs=50
    )  # an arm's next row tells
    assert found.shares is not None
    assert found.shares.ok
    assert found.decision == "not yet"
    assert found.because[0].startswith("the interval includes 0:")


# ---- what forbids a decision -----------------------------------------------------------------------------------


def test_wrong_shares(objects: ObjectStore) -> None:
    log_split(objects, 3_000, errors=(1.0, 0.5), share=0.5, actual=0.4)
    found = compared(objects)
    assert found.decision == "not yet"
    assert found.shares is not None
    assert not found.shares.ok
    assert "the shares are wrong" in found.because[0]
    assert all(group.decision == "not yet" for group in found.groups)


def test_shares_that_nobody_knows(objects: ObjectStore) -> None:
    log_split(objects, 3_000, errors=(1.0, 0.5), share=None)
    found = compared(objects)
    assert (found.decision, found.shares) == ("promote", None)
    assert "not known" in found.because[1]
    given = compared(objects, shares={"champion": 90, "challenger": 10})
    assert given.decision == "not yet"
    assert given.shares is not None
    assert not given.shares.ok
    fair = compared(objects, shares={"champion": 1, "challenger": 1, "third": 2})
    assert fair.shares is not None
    assert fair.shares.expected == pytest.approx(0.5)


def test_outcomes_that_are_missing_unevenly(objects: ObjectStore) -> None:
    rng = np.random.default_rng(3)
    outcomes: dict[str, list[Any]] = {"request_id": [], "outcome": []}
    with PredictionLog(objects, "gdp", "r") as log:
        for i in range(3_000):
            second = i % 2 == 1
            log.add(str(i), group="DEU", version=1 + second, arm="xy"[second], output="1.0", share=0.5, time=START + i)
            if not second or rng.random() < 0.7:  # of the challenger's answers, a third is never judged
                outcomes["request_id"].append(str(i))
                outcomes["outcome"].append(1.0 + (0.1 if second else 1.0) * rng.standard_normal())
    from umbel.storage.predictions.log import write_outcomes

    write_outcomes(objects, "gdp", outcomes["request_id"], outcomes["outcome"], [None] * len(outcomes["outcome"]))
    found = compared(objects)
    assert found.shares is not None
    assert found.shares.ok
    assert found.decision == "not yet"
    assert "outcomes are missing unevenly" in found.because[0]
    assert found.challenger.waiting == pytest.approx(450, abs=60)


@pytest.mark.parametrize("broken", [float("nan"), None, [1.0, 2.0], "text"])
def test_answers_without_a_loss_forbid_a_promotion(objects: ObjectStore, broken: Any) -> None:
    log_shadow(objects, 1_500, {"DEU": (1.0, 0.8), "FRA": (1.0, 0.8)}, spoil=[] if broken is None else broken)
    found = compared(objects)
    assert (found.decision, found.challenger.unusable) == ("not yet", 1)
    assert "can't be compared" in found.because[0]
    decisions = {group.group: group.decision for group in found.groups}
    assert decisions["FRA"] == "not yet"  # the sixth request was its


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"alpha": 0.0}, "error rate"),
        ({"alpha": 0.9}, "error rate"),
        ({"least": 5}, "large samples"),
        ({"gain": -1.0}, "least gain"),
        ({"gain": math.nan}, "least gain"),
        ({"loss": "cubed"}, "no such loss"),
        ({"loss": "pinball:2"}, "no such loss"),
        ({"design": "x"}, "no such design"),
        ({"unit": "x"}, "no such unit"),
        ({"shares": {"champion": 1}}, "share above 0"),
        ({"loss": lambda a, b: 1.0}, "a number for each"),
    ],
)
def test_arguments_that_can_not_be_used(objects: ObjectStore, options: dict[str, Any], match: str) -> None:
    log_split(objects, 50)
    with pytest.raises(UsageError, match=match):
        compared(objects, **options)


def test_an_empty_log(objects: ObjectStore) -> None:
    found = compared(objects)
    assert (found.decision, found.difference, found.looks) == ("not yet", None, ())
    assert "not known yet" in found.text()
    assert "nothing to show" in found.svg()


# ---- units -----------------------------------------------------------------------------------------------------


def test_keys_count_once(objects: ObjectStore) -> None:
    log_split(objects, 4_000, keys=600, groups=("DEU", "FRA"))
    found = compared(objects)
    assert found.unit == "key"
    assert found.champion.n + found.challenger.n <= 600
    assert found.shares is not None
    assert found.shares.ok  # by requests, of which some keys have many, it would be doubted more often than it should
    assert sum(group.champion_n + group.challenger_n for group in found.groups) <= 1_200
    assert compared(objects, unit="request").champion.n > 1_000


def test_shares_that_changed_are_weighed(objects: ObjectStore) -> None:
    """A ramp from 5 to 50 % while all requests become harder: plain means would blame the challenger."""
    log_split(objects, 4_000, share=0.05, errors=(0.5, 0.5))
    log_split(objects, 4_000, share=0.5, errors=(2.0, 2.0), start=START + 9_000, prefix="later", seed=2)
    found = compared(objects)
    plain = compared(objects, shares=None, since=None)
    rows = read_predictions(objects, "gdp").to_pylist()
    losses = {v: [(r["output_value"] - r["outcome"]) ** 2 for r in rows if r["version"] == v] for v in (1, 2)}
    assert np.mean(losses[2]) - np.mean(losses[1]) > 1.0
    assert plain.decision == found.decision == "not yet"
    assert found.difference is not None
    assert abs(found.difference) < 0.5
    assert found.shares is not None
    assert found.shares.ok


def test_requests_outside_the_split_do_not_count(objects: ObjectStore) -> None:
    log_split(objects, 1_000)
    with PredictionLog(objects, "gdp", "r") as log:
        for i in range(200):
            log.add(f"direct{i}", group="DEU", version=2, arm="challenger", output="1", share=1.0, time=START)
            log.add(f"named{i}", group="DEU", version=2, arm="challenger", output="1", time=START)
    assert compared(objects).challenger.assigned == pytest.approx(500, abs=60)


def test_three_arms_have_strata_only_if_their_shares_are_known(objects: ObjectStore) -> None:
    with PredictionLog(objects, "gdp", "r") as log:
        for i, (version, share) in enumerate([(1, 0.8), (2, 0.1), (3, 0.1), (1, 0.5), (2, 0.2), (3, 0.3)]):
            log.add(str(i), group="DEU", version=version, arm=f"arm{version}", output="1", share=share, time=START + i)
    rows = read_predictions(objects, "gdp")
    both = split_up(read_answers(rows, 1, 2, find_loss("squared")), "request", None)
    assert both.strata == ()
    first = split_up(read_answers(rows.slice(0, 3), 1, 2, find_loss("squared")), "request", None)
    (stratum,) = first.strata
    assert stratum[0] == pytest.approx(1 / 9)
    assert stratum[1:] == (1, 1)


# ---- groups ----------------------------------------------------------------------------------------------------


def test_groups_are_decided_each(objects: ObjectStore) -> None:
    log_shadow(objects, 6_000, {"DEU": (1.0, 0.6), "FRA": (0.6, 1.0), "ITA": (1.0, 1.0)})
    found = compared(objects)
    assert {group.group: group.decision for group in found.groups} == {
        "DEU": "promote",
        "FRA": "keep",
        "ITA": "not yet",
    }
    for group in found.groups:
        assert group.low is not None
        assert group.high is not None
        assert (group.low > 0 or group.high < 0) == (group.decision != "not yet")
    assert "DEU" in found.text(per_group=True)
    assert "better in 1, worse in 1, open in 1" in found.text()


# ---- losses ----------------------------------------------------------------------------------------------------


def test_outcomes_of_the_wrong_kind_are_left_out_and_told_of(objects: ObjectStore) -> None:
    from umbel.storage.predictions.log import write_outcomes

    write_outcomes(objects, "gdp", ["q0", "q1"], ["high", "low"], [START, START])  # the first of a request counts
    log_split(objects, 3_000, errors=(1.0, 0.6))
    found = compared(objects)
    assert (found.decision, found.unfit_outcomes, found.challenger.unusable) == ("promote", 2, 0)
    assert found.champion.n + found.challenger.n == 2_998
    assert "2 are of no use to the squared loss" in found.text()


def test_a_loss_of_ones_own(objects: ObjectStore) -> None:
    log_split(objects, 1_000, errors=(1.0, 0.5))

    def cubed(output: Any, outcome: Any) -> Any:
        return np.abs(output - outcome) ** 3

    found = compared(objects, loss=cubed)
    assert found.loss == "cubed"
    assert found.difference is not None
    assert found.difference < 0


# ---- views, promotion, commands --------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path, record: dict[str, Any]) -> Store:
    """A store with two versions of a model, champion and challenger."""
    store = open_store(str(tmp_path / "store"))
    for number, run in enumerate(("one", "two")):
        add_run(store, record, run, models=[Scale(float(number + each)) for each in range(3)])
        store.registry.register(run, model="gdp")
    model = store.registry.model("gdp")
    model.set_alias("champion", 1)
    model.set_alias("challenger", 2)
    return store


def test_views(served: Store) -> None:
    log_split(served.objects, 1_500, errors=(1.0, 0.5), groups=("DEU", "FRA"))
    found = ab("gdp", store=served)
    text = found.text(per_group=True)
    assert text.startswith("gdp: champion (version 1) against challenger (version 2), mean squared loss")
    assert text.splitlines()[-1].startswith("promote: the whole interval is below")
    assert found.svg().startswith("<svg")
    assert "challenger less champion" in found.svg()
    assert "<figure>" in found._repr_html_()
    assert json.dumps(found.as_dict())


def test_equal_models_are_named(served: Store) -> None:
    assert "byte for byte" not in ab("gdp", store=served).because[0]
    served.registry.register("one", model="gdp")
    assert ab("gdp", store=served, challenger="3").because[0] == "both versions have the same models, byte for byte"


def test_promotion_with_evidence(served: Store) -> None:
    log_split(served.objects, 3_000, errors=(1.0, 0.5), groups=("DEU", "FRA", "ITA"))
    model = served.registry.model("gdp")
    moved = promote(ab("gdp", store=served.url), model, trust=True)
    assert (moved.version, moved.action) == (2, "promote")
    assert moved.why.startswith("ab: promote")
    evidence = model.evidence(moved)
    assert evidence is not None
    rows = [row for row in evidence.to_pylist() if row["gate"].startswith("ab(")]
    assert {row["group"] for row in rows} == {"DEU", "FRA", "ITA"}
    assert all(row["candidate"] < row["current"] for row in rows)
    with pytest.raises(UsageError, match="nothing to compare"):
        ab("gdp", store=served)


def test_only_groups_that_are_decided_are_promoted(served: Store) -> None:
    log_shadow(served.objects, 6_000, {"DEU": (1.0, 0.6), "FRA": (0.6, 1.0), "ITA": (1.0, 1.0)})
    model = served.registry.model("gdp")
    moved = promote(ab("gdp", store=served), model, per_group=True, trust=True)
    assert moved.version == 3
    version = model.version("champion").trusted(True)
    assert [version.predict(group, [1.0]) for group in ("DEU", "FRA", "ITA")] == [[1.0], [1.0], [2.0]]


def test_what_is_not_decided_is_not_promoted(served: Store) -> None:
    log_split(served.objects, 3_000)
    model = served.registry.model("gdp")
    found = ab("gdp", store=served)
    for per_group in (False, True):
        with pytest.raises(PromotionRefusedError, match="not promoted"):
            promote(found, model, per_group=per_group, trust=True)
    assert model.resolve("champion").version == 1


def test_a_champion_that_moved_since_is_not_overrun(served: Store, record: dict[str, Any]) -> None:
    log_split(served.objects, 3_000, errors=(1.0, 0.5), groups=("DEU", "FRA", "ITA"))
    found = ab("gdp", store=served)
    add_run(served, record, "three")
    served.registry.register("three", model="gdp")
    model = served.registry.model("gdp")
    model.set_alias("champion", 3)
    with pytest.raises(PromotionRefusedError, match="versions 1 and 2 were compared"):
        promote(found, model, trust=True)
    assert model.resolve("champion").version == 3


def test_versions_by_number_can_be_compared_but_not_promoted_to(served: Store) -> None:
    log_split(served.objects, 3_000, errors=(1.0, 0.5))
    found = ab("gdp", store=served, champion="1", challenger="2")
    assert found.decision == "promote"
    with pytest.raises(UsageError, match="no alias to promote to"):
        promote(found, served.registry.model("gdp"))
    with pytest.raises(NotFoundError):
        ab("gdp", store=served, challenger="nobody")
    with pytest.raises(NotFoundError):
        ab("nothing", store=served)


def test_outcomes_from_tables(served: Store) -> None:
    with PredictionLog(served.objects, "gdp", "r") as log:
        for i in range(4):
            log.add(str(i), group="DEU", version=1, arm="champion", output="1", time=START)
    assert record_outcomes("gdp", {"request_id": ["0", "1"], "outcome": [1.0, None]}, store=served) == 1
    assert record_outcomes("gdp", [{"request_id": "2", "outcome": [1, 2]}], store=served) == 1
    frame = pytest.importorskip("pandas").DataFrame({"request_id": ["3"], "outcome": [3], "time": [datetime.now(UTC)]})
    assert record_outcomes("gdp", frame, store=served) == 1
    rows = read_predictions(served.objects, "gdp").to_pylist()
    assert [(row["outcome"], row["outcome_json"]) for row in rows] == [
        (1, None),
        (None, None),
        (None, "[1, 2]"),
        (3, None),
    ]
    with pytest.raises(UsageError, match="columns request_id and outcome"):
        record_outcomes("gdp", {"id": ["0"]}, store=served)
    with pytest.raises(UsageError, match="no table"):
        record_outcomes("gdp", 3, store=served)
    with pytest.raises(UsageError, match="id of its request"):
        record_outcomes("gdp", {"request_id": [1], "outcome": [1.0]}, store=served)


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
    log_split(served.objects, 3_000, errors=(1.0, 0.5), groups=("DEU", "FRA", "ITA"))
    status, out, _ = umbel("ab", "gdp", "--html", str(tmp_path / "page.html"))
    assert status == 0
    assert "promote: the whole interval" in out
    assert "<svg" in (tmp_path / "page.html").read_text()
    status, out, _ = umbel("ab", "gdp", "--json", "--loss", "absolute", "--since", "2026-03-01")
    assert (status, json.loads(out)["decision"], json.loads(out)["applied"]) == (0, "promote", None)
    assert umbel("ab", "gdp", "--since", "yesterday")[0] == 2
    assert umbel("ab", "gdp", "--split", "champion")[0] == 2
    status, out, err = umbel("ab", "gdp", "--apply", "--min", "5000", "--json")
    assert status == 1
    assert json.loads(out)["decision"] == "not yet"
    assert "not promoted" in err
    status, out, _ = umbel("ab", "gdp", "--apply", "--trust")
    assert (status, "points to version 2" in out) == (0, True)
    assert served.registry.model("gdp").resolve("champion").version == 2
