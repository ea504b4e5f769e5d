"""The benchmark's table, JSON and verdicts, on figures made up here: nothing is measured, no Ray is started."""

from __future__ import annotations

import io
import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench.__main__ import ARMS, main
from tests.bench.chart import bars, draw
from tests.bench.isolation import Isolated, PartError
from tests.bench.measurement import ArmResult, Measurement, at_least, at_most, failed
from tests.bench.report import document, format_bound, format_value, print_arm, print_table, verdict, write
from tests.bench.workload import noop_sweep, spin

MACHINE = {"cores": 2, "python": "3.11.7", "ray": "2.60.0", "commit": "0123456789abcdef", "dirty": True}
TAKEN = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
GOOD = Measurement("speed against plain Ray calls", 13.26, "x", at_least(10), "plain: 14.2 s")
BAD = Measurement("growth of peak memory", 80.25, "MB", at_most(64))
TOLD = Measurement("import", 0.0312, "s")
RESULTS = [
    ArmResult("noop", [GOOD, TOLD], 61.5, others=0.02, details={"plain_s": [14.2]}),
    ArmResult("million", [BAD], 45.0, others=0.83),
    ArmResult("resume", [], 120.0, error="not done within the arm's 120 s\nthe log's tail"),
]


def shown(judged: bool) -> str:
    console = Console(file=io.StringIO(), width=140)
    print_table(console, RESULTS, MACHINE, judged=judged)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_picture_takes_tune_at_its_rate(tmp_path: Path) -> None:
    details = {
        "trials": 20_000,
        "umbel_s": [0.9, 0.7, 0.8],
        "plain_s": [12.0],
        "tune_trials": 200,
        "tune_s": 6.0,
        "tune_bare_s": 5.0,
    }
    assert [seconds for _, seconds in bars(details)] == pytest.approx([0.8, 12.0, 500.0, 600.0])
    results, picture = tmp_path / "results.json", tmp_path / "speed.png"
    results.write_text(json.dumps({"machine": MACHINE, "arms": {"noop": {"details": details}}}))
    draw(results, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_bound_holds_at_its_limit_and_never_for_nan() -> None:
    assert at_most(1.03).holds(1.03)
    assert not at_most(1.03).holds(1.0301)
    assert at_least(500).holds(500)
    assert not at_least(500).holds(499.9)
    assert not at_most(1.0).holds(math.nan)
    assert not at_least(1.0).holds(math.nan)


def test_what_fails_is_named_and_unjudged_sizes_fail_nothing_but_arms_that_broke() -> None:
    broken = "resume: not done within the arm's 120 s\nthe log's tail"
    assert failed(RESULTS, judged=True) == ["million: growth of peak memory", broken]
    assert failed(RESULTS, judged=False) == [broken]
    assert failed(RESULTS[:1], judged=True) == []


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1612.4, "x", "1,612 x"),
        (13.26, "x", "13.3 x"),
        (1.0287, "x", "1.029 x"),
        (66, "objects", "66"),
        (5.04, "MB", "5.0 MB"),
        (0.0312, "s", "0.031 s"),
        (103.456, "s", "103.46 s"),
    ],
)
def test_values_have_units_and_few_digits(value: float, unit: str, text: str) -> None:
    assert format_value(value, unit) == text


def test_bounds_read_as_signs() -> None:
    assert format_bound(at_most(1.03), "x") == "≤ 1.03 x"
    assert format_bound(at_least(500), "x") == "≥ 500 x"
    assert format_bound(at_most(100), "objects") == "≤ 100"
    assert format_bound(None, "s") == ""


def test_verdicts() -> None:
    assert [verdict(m, judged=True) for m in (GOOD, BAD, TOLD)] == ["yes", "NO", ""]
    assert [verdict(m, judged=False) for m in (GOOD, BAD, TOLD)] == ["not judged", "not judged", ""]


def test_the_table_tells_each_figure_its_bound_and_what_was_wrong() -> None:
    text = shown(judged=True)
    row = next(line for line in text.splitlines() if GOOD.what in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "noop",
        "speed against plain Ray calls",
        "13.3 x",
        "≥ 10 x",
        "yes",
        "plain: 14.2 s",
    ]
    assert "NO" in next(line for line in text.splitlines() if BAD.what in line)
    assert "not done within the arm's 120 s" in text
    assert "the log's tail" not in text
    assert "2 cores, Python 3.11.7, Ray 2.60.0, commit 0123456789ab with changes" in text
    assert "Others used 83% of the cores while million ran" in text
    assert "while noop ran" not in text


def test_a_quick_table_says_that_it_judges_nothing() -> None:
    text = shown(judged=False)
    assert "nothing is judged" in text
    assert "not judged" in next(line for line in text.splitlines() if GOOD.what in line)


def test_an_arm_is_told_as_it_ends() -> None:
    console = Console(file=io.StringIO(), width=140)
    for result in RESULTS:
        print_arm(console, result, judged=True)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines()[:4] == [
        "noop: speed against plain Ray calls: 13.3 x (≥ 10 x: yes)",
        "noop: import: 0.031 s",
        "million: growth of peak memory: 80.2 MB (≤ 64 MB: NO)",
        "resume: could not be measured: not done within the arm's 120 s",
    ]


def test_the_document_is_kept_under_its_time_and_as_the_latest(tmp_path: Path) -> None:
    path = write(document(RESULTS, MACHINE, TAKEN, judged=True), tmp_path / "results", TAKEN)
    assert path.name == "2031-02-03T04-05-06Z.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept == json.loads((path.parent / "latest.json").read_text(encoding="utf-8"))
    assert kept["taken"] == "2031-02-03T04:05:06+00:00"
    assert kept["promised_sizes"] is True
    assert kept["machine"] == MACHINE
    noop = kept["arms"]["noop"]
    assert noop["details"] == {"plain_s": [14.2]}
    assert noop["measurements"][0] == {
        "what": "speed against plain Ray calls",
        "value": 13.26,
        "unit": "x",
        "must_hold": {"kind": "at least", "limit": 10},
        "holds": True,
        "note": "plain: 14.2 s",
    }
    assert noop["measurements"][1]["must_hold"] is None
    assert kept["arms"]["million"]["measurements"][0]["holds"] is False
    assert kept["arms"]["resume"]["error"].startswith("not done within")


def test_a_quick_document_judges_nothing() -> None:
    kept = document(RESULTS, MACHINE, TAKEN, judged=False)
    assert kept["promised_sizes"] is False
    assert {m["holds"] for arm in kept["arms"].values() for m in arm["measurements"]} == {None}


def test_an_arm_that_breaks_ends_in_the_table_and_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, object]]:
        raise PartError("it broke")

    def works(isolated: Isolated, divisor: int) -> tuple[list[Measurement], dict[str, object]]:
        return [Measurement("trials", 20_000 / divisor, "objects")], {}

    monkeypatch.setitem(ARMS, "noop", (breaks, 1.0))
    monkeypatch.setitem(ARMS, "million", (works, 1.0))
    assert main(["--only", "million", "--quick", "--results", str(tmp_path)]) == 0
    assert "million: trials: 2,000" in capsys.readouterr().out
    assert main(["--only", "noop,million", "--results", str(tmp_path)]) == 1
    assert "it broke" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*.json"))) >= 2


def test_an_unknown_arm_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "noop,warp"])
    assert ended.value.code == 2
    assert "no such arm: warp" in capsys.readouterr().err


def test_work_is_a_fixed_amount() -> None:
    once, again = spin({"rounds": 1000}), spin({"rounds": 1000})
    assert once["score"] == again["score"]
    assert once["score"] != spin({"rounds": 1001})["score"]


def test_trials_that_groups_can_not_share_are_refused() -> None:
    with pytest.raises(ValueError, match="evenly"):
        noop_sweep(2_001)
