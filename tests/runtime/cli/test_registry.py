"""The commands of registered models, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import umbel
from tests.storage.registered import Scale
from umbel.runtime.cli import app as cli
from umbel.storage.layout import alias_record, version_record

Command = Callable[..., tuple[int, str, str]]


def trial(config: dict[str, Any]) -> umbel.Result:
    return umbel.Result({"loss": config["x"] + (config["country"] == "a/b") * config["bias"]}, model=Scale(config["x"]))


def refit(best: umbel.Best) -> Scale:
    return Scale(10.0 * best.value)


def fit(store: str, name: str, x: list[int], bias: list[int]) -> umbel.Run:
    space = {"x": x, "bias": bias}
    sweep = umbel.sweep(trial, space=space, search="grid", over={"country": ["AUT", "a/b"]}, metric="loss", name="fit")
    return umbel.run(umbel.task(refit).map(sweep.best()), store=store, name=name, executor="inline", progress="quiet")


@pytest.fixture
def store(tmp_path: Path) -> umbel.Store:
    """A store with two runs: the second is better in AUT and worse in a/b."""
    url = str(tmp_path / "store")
    fit(url, "monday", [3, 4], [0])
    fit(url, "tuesday", [1, 2], [50])
    return umbel.open_store(url)


@pytest.fixture
def command(store: umbel.Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command; gives status, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["umbel", *arguments, "--store", store.url])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return code if isinstance(code, int) else 0, out, err

    return run


def test_from_a_run_to_a_champion_and_back(store: umbel.Store, command: Command, tmp_path: Path) -> None:
    assert "umbel register" in command("models")[1]
    code, out, _ = command("register", "monday", "--model", "gdp", "--by", "country", "--inputs", "[1, 2.5]")
    assert code == 0
    assert "gdp version 1: 2 models of monday (pickle)" in out
    (tmp_path / "example.json").write_text("[1.0]")
    code, out, _ = command(
        "register",
        "tuesday",
        "--model",
        "gdp",
        "--models",
        "refit",
        "--inputs",
        str(tmp_path / "example.json"),
        "--json",
    )
    made = json.loads(out)
    assert (made["version"], made["model"], made["node"], made["groups"]) == (2, "gdp", "refit", 2)
    code, out, _ = command("promote", "gdp", "1", "--trust", "--why", "the first")
    assert (code, out) == (0, "gdp: champion is version 1\n")
    assert command("promote", "gdp", "1")[1] == "gdp: champion is version 1 already; nothing was moved\n"
    code, out, _ = command("promote", "gdp", "1", "--gate", "max-size-bytes:1e9")
    assert (code, out) == (0, "gdp: champion is version 1 already, and passes its gates; nothing was moved\n")
    assert command("promote", "gdp", "1", "--gate", "max-size-bytes:1")[0] == 1
    code, out, err = command("promote", "gdp", "2", "--trust", "--gate", "no-group-worse")
    assert code == 1
    assert "Traceback" not in err
    assert "PromotionRefusedError" in err
    assert "a%2Fb" in err
    assert "--per-group" in err
    code, out, _ = command("promote", "gdp", "2", "--trust", "--gate", "no-group-worse", "--per-group")
    assert code == 0
    assert "champion is version 3, was version 1" in out
    assert "1 group keeps its model" in out
    champion = store.registry.model("gdp").version("champion")
    assert champion.predict("AUT", [1.0], trust=True) == [10.0]
    assert champion.predict({"country": "a/b"}, [1.0], trust=True) == [3.0]
    out = command("models")[1]
    assert "champion → 3" in out
    assert json.loads(command("models", "--json")[1]) == [{"model": "gdp", "versions": 3, "aliases": {"champion": 3}}]
    out = command("models", "gdp")[1]
    assert "champion" in out
    rows = json.loads(command("models", "gdp", "--json")[1])
    assert [(row["version"], row["aliases"]) for row in rows] == [(3, ["champion"]), (2, []), (1, [])]
    assert [row["composed_of"] for row in rows] == [[1, 2], [], []]
    code, out, _ = command("promote", "gdp", "2", "--alias", "challenger", "--trust")
    assert "challenger is version 2" in out
    code, out, _ = command("rollback", "gdp", "--why", "complaints")
    assert (code, out) == (0, "gdp: champion is version 1, was version 3\n")
    out = command("history", "gdp", "--alias", "champion")[1]
    assert "complaints" in out
    assert "no_group_worse" in "".join(out.split())
    moves = json.loads(command("history", "gdp", "--json")[1])
    assert [(row["alias"], row["version"], row["action"]) for row in moves] == [
        ("champion", 1, "rollback"),
        ("challenger", 2, "promote"),
        ("champion", 3, "promote"),
        ("champion", 1, "promote"),
    ]


def test_gates_may_name_groups_as_the_data_do(store: umbel.Store) -> None:
    store.registry.register("monday", model="gdp")
    model = store.registry.model("gdp")
    for named in ("a/b", "a%2Fb"):
        table = pa.table({"group": ["AUT", named], "ok": [True, False]})
        with pytest.raises(umbel.PromotionRefusedError, match="a%2Fb"):
            model.promote(1, gate=lambda candidate, current, table=table: table)  # type: ignore[misc]
    assert model.aliases() == {}


def test_damaged_records_leave_the_others_readable(store: umbel.Store, command: Command) -> None:
    for run in ("monday", "tuesday"):
        command("register", run, "--model", "gdp")
    command("promote", "gdp", "1")
    command("promote", "gdp", "2", "--alias", "pilot")
    for path in (version_record("gdp", 1), alias_record("gdp", "champion", 1)):
        (Path(store.url) / path).write_text("{")
    code, out, err = command("models", "gdp")
    assert (code, "tuesday" in out, "monday" in out) == (1, True, False)
    assert "registry/gdp/versions/00000001.json" in err
    code, out, err = command("models")
    assert (code, "pilot → 2" in out) == (1, True)
    assert "restore this one file from a copy: registry/gdp/aliases/champion/00000001.json" in err
    code, out, err = command("history", "gdp", "--json")
    assert (code, [row["alias"] for row in json.loads(out)]) == (1, ["pilot"])
    assert "aliases/champion/00000001.json" in err
    assert "Traceback" not in err


def test_register_says_what_comes_next(command: Command) -> None:
    out = command("register", "monday", "--model", "gdp")[1]
    assert "no training data for umbel drift: no example inputs" in out
    assert "umbel promote gdp 1 puts it to use" in out
    out = command("register", "monday", "--model", "gdp", "--inputs", "[1]")[1]
    assert "no training data for umbel drift: the run keeps no data=" in out
    assert "umbel.profile(table).save('gdp', 2)" in out
    command("promote", "gdp", "2", "--trust")
    assert command("drift", "gdp")[0] == 2
    assert "umbel promote gdp 2 --trust puts it to use" in out


def test_tables_break_no_words_at_80_columns(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command("register", "monday", "--model", "gdp", "--inputs", "[1]", "--why", "the first of many good ones")
    command("promote", "gdp", "1", "--trust", "--gate", "better-on-most", "--gate", "no-group-worse", "--why", "words")
    out = command("history", "gdp")[1]
    assert {"champion", "promote", "better_on_most,", "no_group_worse", "–", "1", "words"} <= set(out.split())
    assert {"champion", "monday", "first"} <= set(command("models", "gdp")[1].split())


def test_mistakes_are_messages(command: Command) -> None:
    command("register", "monday", "--model", "gdp", "--inputs", "[1]")
    for arguments, code, message in [
        (("register", "sunday", "--model", "gdp"), 2, "monday"),
        (("register", "monday", "--model", "../gdp"), 2, "name of a model"),
        (("register", "monday", "--model", "gdp", "--by", "land"), 2, "country"),
        (("register", "monday", "--model", "gdp", "--inputs", "[1"), 2, "no JSON"),
        (("register", "monday", "--model", "gdp", "--inputs", "5"), 2, "TypeError"),
        (("promote", "gdp", "7", "--trust"), 2, "1 to 1"),
        (("promote", "gpd", "1"), 2, "did you mean 'gdp'"),
        (("promote", "gdp", "1"), 2, "--trust"),
        (("promote", "gdp", "1", "--alias", "a/b"), 2, "model alias"),
        (("promote", "gdp", "1", "--alias", "../evil"), 2, "name of a model alias"),
        (("promote", "gdp", "1", "--gate", "nope"), 2, "umbel promote --help"),
        (("drift", "gdp", "--against", "/nope.parquet"), 2, "the version's own profile"),
        (("ab", "gdp", "--split", "champion:90"), 2, "write champion=90"),
        (("promote", "gdp", "1", "--gate", "good"), 2, "better-on-most"),
        (("promote", "gdp", "1", "--per-group", "--trust"), 2, "--gate"),
        (("promote", "gdp", "1", "--trust", "--gate", "max-size-bytes:10"), 1, "max_size_bytes(10)"),
        (("rollback", "gdp"), 2, "umbel promote gdp"),
        (("history", "gdp", "--alias", "champion"), 2, "no such alias"),
    ]:
        status, _, err = command(*arguments)
        assert (status, message in err, "Traceback" in err) == (code, True, False), (arguments, err)
    assert "no aliases yet" in command("history", "gdp")[1]
    command("promote", "gdp", "1", "--trust")
    assert "nothing that 'champion'" in command("rollback", "gdp")[2]


PROMOTER = """
import sys
import umbel

url, version = sys.argv[1:]
model = umbel.open_store(url).registry.model("gdp")


def wait(candidate, current):
    print("ready", flush=True)
    sys.stdin.readline()
    return True


try:
    model.promote(int(version), gate=wait, why="process " + version)
    print("won")
except umbel.StoreConflictError as error:
    print("lost to", error.got)
"""


@pytest.mark.ray
def test_two_processes_promote_at_once(store: umbel.Store, command: Command) -> None:
    for run in ("monday", "monday", "tuesday"):
        command("register", run, "--model", "gdp")
    command("promote", "gdp", "1")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROMOTER, store.url, version],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for version in ("2", "3")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # both have looked: now let them go on
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0] for process in processes]
    winner = store.registry.model("gdp").resolve()
    assert sorted(text.split()[0] for text in said) == ["lost", "won"]
    (lost,) = [text for text in said if text.startswith("lost")]
    assert f"version {winner.version} by" in lost
    assert f"process {winner.version}" in lost
    assert said[winner.version - 2] == "won\n"
