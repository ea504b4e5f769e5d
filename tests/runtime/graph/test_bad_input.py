"""What a user gets wrong is told in one typed error, before anything runs or is written."""

from __future__ import annotations

import functools
import math
import os
import pickle
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import umbel
from tests.runtime.small_graphs import a_sweep, load, run, score, score_with_data
from umbel.runtime.graph.nodes import Sweep
from umbel.scheduler.errors import (
    CodeError,
    GraphError,
    SpaceError,
    StoreError,
    UmbelError,
    UsageError,
)


async def wait() -> None: ...


LOCK = threading.Lock()


def of_a_script(source: str, **names: object) -> Callable[..., Any]:
    """The function ``trial`` of a script, which can't be imported and so travels with what it uses."""
    namespace: dict[str, Any] = {"__name__": "script", **names}
    exec(source, namespace)
    trial: Callable[..., Any] = namespace["trial"]
    return trial


def with_captured(lock: object) -> Callable[..., Any]:
    def trial(config: dict[str, Any]) -> object:
        return lock

    return trial


class Service:
    """A callable that holds something which can't travel."""

    def __init__(self) -> None:
        self.clients = {"database": threading.Lock()}

    def __call__(self, config: dict[str, Any]) -> float:
        return 0.0


@umbel.task
def pair(left: object, right: object) -> None:
    return None


def runs_in(store: Path) -> list[str]:
    folder = store / "runs"
    return sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []


# ---- refused before anything runs ----------------------------------------------------------------------------


@dataclass
class Refused:
    """What is asked for, and what the error says: parts of its fields."""

    id: str
    make: Callable[[], Any]
    kind: type[UmbelError]
    what: str
    got: str
    expected: str
    hint: str
    options: dict[str, Any] = field(default_factory=dict)


def over(**groups: Any) -> Callable[[], Sweep]:
    return lambda: a_sweep(over=groups)


def sweep_of(**changed: Any) -> Callable[[], Sweep]:
    return lambda: a_sweep(**changed)


REFUSED = [
    # the space
    Refused("no space", sweep_of(space=...), SpaceError, "space is not a dict", "None", "a dict", "tune.loguniform"),
    Refused(
        "empty space", sweep_of(space={}), SpaceError, "space is empty", "no dim", "at least one", "tune.loguniform"
    ),
    Refused("a list", sweep_of(space=[1, 2]), SpaceError, "space is not a dict", "[1, 2]", "a dict", "tune.loguniform"),
    Refused(
        "an object in the space",
        sweep_of(space={"net": {"alpha": object()}}),
        SpaceError,
        "'net.alpha': a builtins.object is not a domain",
        "<object object",
        "a ray.tune domain, an Optuna distribution",
        "Constant(value)",
    ),
    Refused(
        "a function in the space",
        sweep_of(space={"alpha": score}),
        SpaceError,
        "'alpha': a function or class can't be a dimension",
        "score",
        "a ray.tune domain",
        "tune.choice([f, g])",
    ),
    Refused(
        "no choices", sweep_of(space={"alpha": []}), SpaceError, "no values", "an empty list", "one value", "leave"
    ),
    # the search
    Refused("no trials", sweep_of(trials=0), SpaceError, "at least one trial", "trials=0", "trials >= 1", "trials=100"),
    Refused(
        "negative trials", sweep_of(trials=-3), SpaceError, "at least one trial", "-3", "trials >= 1", "trials=100"
    ),
    Refused("half a trial", sweep_of(trials=2.5), SpaceError, "not a whole number", "2.5", "an integer", "trials=100"),
    Refused(
        "trials left out", sweep_of(trials=None), SpaceError, "needs a number", "None", "trials >= 1", "trials=100"
    ),
    Refused(
        "unknown search",
        sweep_of(search="anneal"),
        SpaceError,
        "no such search",
        "'anneal'",
        '"random", "grid", "tune", "tpe"',
        'search="random"',
    ),
    Refused(
        "grid over a continuum",
        sweep_of(search="grid", trials=None),
        SpaceError,
        "grid over a continuous domain",
        "dimension 'alpha': Uniform",
        "finitely many",
        "tune.grid_search",
    ),
    Refused(
        "more trials than the grid has",
        sweep_of(search="grid", space={"alpha": [1, 2]}, trials=3),
        SpaceError,
        "more trials than the grid",
        "trials=3, with 2 points",
        "trials <= 2",
        "leave trials out",
    ),
    Refused("no metric", sweep_of(metric=...), UsageError, "metric of sweep 'search'", "None", "name", 'metric="mase"'),
    Refused("empty metric", sweep_of(metric=""), UsageError, "metric of sweep 'search'", "''", "name", 'metric="mase"'),
    Refused("unknown mode", sweep_of(mode="least"), UsageError, "mode", "mode='least'", "'min' or 'max'", "if less of"),
    Refused("unknown keep", sweep_of(keep="some"), UsageError, "keep", "keep='some'", "'best' or 'all' or", "models"),
    Refused("seed", sweep_of(seed="lucky"), UsageError, "seed is not", "'lucky'", "a whole number", "leave it out"),
    # the groups
    Refused("no keys", sweep_of(over={}), UsageError, "over has no groups", "{}", "values by key", "leave it out"),
    Refused(
        "a list of groups", sweep_of(over=["DEU"]), UsageError, "no groups", "['DEU']", "values by key", "leave it"
    ),
    Refused(
        "empty groups", over(country=[]), UsageError, "'country' are empty", "[]", "at least one", "leave over= out"
    ),
    Refused("a string", over(country="DEU"), UsageError, "'country' are not a list", "'DEU'", "in a list", "over={"),
    Refused(
        "duplicate groups",
        over(country=["DEU", "FRA", "DEU"]),
        UsageError,
        "the groups of 'country' hold duplicates",
        "'DEU'",
        "each value once",
        "dict.fromkeys",
    ),
    Refused(
        "equal groups of two types", over(year=[1, 1.0]), UsageError, "duplicates", "1.0", "each value once", "remove"
    ),
    Refused("groups of two types", over(key=["a", 1]), UsageError, "different types", "int, str", "one type", "str("),
    Refused("a group that is no value", over(key=[None]), UsageError, "not a plain", "None", "strings", "by strings"),
    Refused("a group that is NaN", over(key=[math.nan]), UsageError, "not a plain", "nan", "finite", "by strings"),
    Refused("a huge group", over(key=[2**63]), UsageError, "not a plain", str(2**63), "64 bits", "by strings"),
    Refused("a key with a space", lambda: a_sweep(over={"a b": [1]}), UsageError, "key", "'a b'", "letters", "rename"),
    Refused("a key of the table", over(trial=[1]), UsageError, "can't be a group key", "'trial'", "worker", "rename"),
    Refused("a key of a config", over(config_alpha=[1]), UsageError, "can't be", "'config_alpha'", "config_", "rename"),
    Refused(
        "keys by case", over(area=[1], Area=[1]), UsageError, "only in case", "'area' and 'Area'", "differ", "rename"
    ),
    Refused("a key in the space", over(alpha=[1]), SpaceError, "both a group key", "'alpha'", "different", "rename"),
    # the data
    Refused(
        "data of another length",
        lambda: a_sweep(score_with_data, over={"country": ["DEU", "FRA"]}, data=load.map(["a", "b", "c"])),
        GraphError,
        "the data don't line up with the groups",
        "3 elements of data, 2 groups (country)",
        "one element of data a group",
        "map the loading task over the same list",
    ),
    Refused(
        "a list of data of another length",
        lambda: a_sweep(score_with_data, over={"country": ["DEU", "FRA"]}, data=[1]),
        GraphError,
        "the data don't line up",
        "1 elements of data, 2 groups",
        "one element",
        "over=",
    ),
    Refused(
        "a list of data without groups",
        lambda: a_sweep(score_with_data, data=[1, 2]),
        GraphError,
        "the data don't line up",
        "2 elements of data, 1 group",
        "one element",
        "data=[that_list]",
    ),
    Refused(
        "data that the function does not take",
        lambda: a_sweep(score, data="all"),
        GraphError,
        "can't be called as fn(config, data)",
        "search(config: ",
        "fn(config, data)",
        "leave out data=",
    ),
    Refused(
        "no data for a function that takes it",
        lambda: a_sweep(score_with_data),
        GraphError,
        "can't be called as fn(config): missing a required argument: 'data'",
        "search(config: ",
        "fn(config)",
        "data=…",
    ),
    # what can't be sent to workers
    Refused(
        "a global that can't be pickled",
        lambda: a_sweep(of_a_script("def trial(config): return LOCK", LOCK=LOCK)),
        CodeError,
        "the function 'trial' can't be sent to workers: its global 'LOCK'",
        "_thread.lock in global 'LOCK'",
        "can be pickled",
        "create it inside the function",
    ),
    Refused(
        "a captured variable that can't be pickled",
        lambda: a_sweep(with_captured([1, LOCK])),
        CodeError,
        "its captured variable 'lock', item 1 can't be pickled",
        "_thread.lock in captured variable 'lock'",
        "can be pickled",
        "create it inside",
    ),
    Refused(
        "an attribute that can't be pickled",
        lambda: a_sweep(Service()),
        CodeError,
        "the function 'Service' can't be sent to workers: its attribute 'clients', item 'database'",
        "_thread.lock in attribute 'clients'",
        "can be pickled",
        "create it inside",
    ),
    Refused(
        "an argument of a partial",
        lambda: a_sweep(functools.partial(score_with_data, data=LOCK), name="partial"),
        CodeError,
        "argument 'data' can't be pickled",
        "_thread.lock",
        "can be pickled",
        "create it inside",
    ),
    Refused(
        "data that can't be pickled",
        lambda: a_sweep(score_with_data, data=LOCK),
        CodeError,
        "_thread.lock can't be pickled",
        "cannot pickle",
        "another process",
        "make it inside",
    ),
    Refused(
        "an element that can't be pickled",
        lambda: pair.map(["a", LOCK], 1),
        CodeError,
        "_thread.lock can't be pickled",
        "cannot pickle",
        "another process",
        "make it inside",
    ),
    # tasks and graphs
    Refused("no node", lambda: score, UsageError, "nothing to run", "function score", "a node", "umbel.task(fn).bind"),
    Refused("a bare task", lambda: load, UsageError, "nothing to run", "<Task load>", "a node", "bind it first"),
    Refused("an empty list", lambda: [], UsageError, "nothing to run", "[]", "a node", "make one of a function"),
    Refused(
        "two sweeps", lambda: [a_sweep(), a_sweep()], GraphError, "two sweeps are named", "search", "own", "name=…"
    ),
    Refused(
        "map of nothing", lambda: load.map("DEU"), GraphError, "nothing to map", "", "at least one list", "bind(…)"
    ),
    Refused("lengths", lambda: pair.map([1], [1, 2]), GraphError, "lengths", "left: 1, right: 2", "the same", "node"),
    Refused("arguments", lambda: load.bind(1, 2, 3), GraphError, "too many", "3 by position", "load(name: ", "plain"),
    Refused("keywords", lambda: load.map(["a"], size=1), GraphError, "'size'", "by name: size", "load(name: ", "plain"),
    Refused("async", lambda: umbel.task(wait), UsageError, "this one is async", "async def wait", "def", "asyncio.run"),
    Refused("retries", lambda: umbel.task(retries=-1)(score), UsageError, "retries", "-1", "≥ 0", "retries=2"),
    Refused("time limit", lambda: umbel.task(timeout_s=0)(score), UsageError, "timeout_s", "0", "seconds > 0", "leave"),
    Refused("retry_on", lambda: umbel.task(retry_on=(1,))(score), UsageError, "retry_on", "(1,)", "classes", "OSError"),  # type: ignore[arg-type]
    Refused("cpus", lambda: umbel.task(cpus=-1)(score), UsageError, "cpus is not", "-1", "≥ 0", "cpus=2"),
    Refused("memory", lambda: umbel.task(memory="2G")(score), UsageError, "memory", "'2G'", "bytes", "2**30"),  # type: ignore[call-overload]
    # the run
    Refused(
        "path in a name", a_sweep, UsageError, "name of a run", "'a/b'", "letters", "call it 'a-b'", {"name": "a/b"}
    ),
    Refused("parent as a name", a_sweep, UsageError, "name of a run", "'..'", "letters", "choose", {"name": ".."}),
    Refused("empty name", a_sweep, UsageError, "name of a run", "''", "letters", "choose", {"name": ""}),
    Refused("sweep's name", sweep_of(name="a b"), UsageError, "name of a sweep", "'a b'", "letters", "call it 'a-b'"),
    Refused("executor", a_sweep, UsageError, "unknown executor", "'dask'", '"ray" or', "inline", {"executor": "dask"}),
    Refused("workers", a_sweep, UsageError, "workers is not", "0", "≥ 1", "leave it out", {"workers": 0}),
    Refused("progress", a_sweep, UsageError, "unknown kind of progress", "loud", '"quiet"', "", {"progress": "loud"}),
]


@pytest.mark.parametrize("case", REFUSED, ids=[case.id for case in REFUSED])
def test_refused_before_anything_is_written(case: Refused, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(UmbelError) as caught:
        run(case.make(), store, **case.options)
    error = caught.value
    assert type(error) is case.kind
    for part, text in [(case.what, error.what), (case.got, error.got), (case.expected, error.expected)]:
        assert part in (text or ""), f"{part!r} is not in {text!r}"
    assert case.hint in (error.hint or "")
    assert str(error).startswith(error.what)
    for text in (error.got, error.expected, error.hint):
        assert text is None or text in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert runs_in(store) == []


def test_a_node_is_no_list() -> None:
    with pytest.raises(UsageError, match=r"node 'load' can't be iterated over.*\n.*task\.map"):
        list(load.map(["a"]))
    with pytest.raises(UsageError, match="are a fan-out"):
        a_sweep(over={"country": load.map(["a"])})
    with pytest.raises(UsageError, match="at least one trial a group"):
        a_sweep().top(0)


# ---- stores that can't be used ---------------------------------------------------------------------------------


def test_a_protocol_that_nobody_knows() -> None:
    with pytest.raises(StoreError) as caught:
        run(a_sweep(), "gopher://host/folder")
    assert type(caught.value) is StoreError
    assert caught.value.what == "unknown store protocol gopher://"
    assert "s3://" in (caught.value.expected or "")


@pytest.mark.parametrize("below", ["", "/store"])
def test_a_file_where_the_store_should_be(below: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StoreError, match="Not a directory") as caught:
        run(a_sweep(), f"{tmp_path}/taken{below}")
    assert f"{tmp_path}/taken{below}" in str(caught.value)
    assert "choose another store with store=…" in (caught.value.hint or "")
    assert (tmp_path / "taken").read_text() == "a file"


@contextmanager
def unprivileged() -> Iterator[None]:
    """Without the rights of root, before whom no folder is read-only."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_store_that_can_not_be_written(tmp_path: Path) -> None:
    run(a_sweep(), tmp_path / "store")  # imports what an unprivileged user may not be able to read
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # not below tmp_path, which only its owner may enter
        Path(folder).chmod(0o555)
        with unprivileged(), pytest.raises(StoreError, match="can't be written") as caught:
            run(a_sweep(), folder)
        assert folder in str(caught.value)
        assert "Permission denied" in str(caught.value)
        assert "write access" in (caught.value.hint or "")
        assert list(Path(folder).iterdir()) == []


@pytest.mark.parametrize("shape", [lambda node: [node, 1], lambda node: {"a": [node]}, lambda node: (1, {"b": node})])
def test_nodes_inside_containers_are_refused(shape: Any) -> None:
    task = umbel.task(str)
    for make in (task.bind, task.map):
        with pytest.raises(GraphError, match="holds a node inside a"):
            make(shape(load.bind("a")))
