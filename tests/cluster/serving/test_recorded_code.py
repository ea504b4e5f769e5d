"""Models whose modules are not here: imported from the sources of their runs, and never from another version's."""

from __future__ import annotations

import asyncio
import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import umbel
from tests.cluster.served import Client, look, promote, serving
from umbel.cluster.serving.recorded_code import RecordedCode, _guessed
from umbel.scheduler.errors import StoreError
from umbel.storage.store import Store, open_store

MODULES = ("rc_fit", "rc_shapes", "rc_parts", "rc_parts.late")
FIT = """
import umbel
from rc_shapes import Scale

def fit(config):
    return umbel.Result({"mae": 1.0}, model=Scale())
"""
SHAPES = """
import rc_parts

class Scale:
    def predict(self, inputs):
        from rc_parts import late  # {late}
        return [rc_parts.FACTOR * late.ONE * each for each in inputs]
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    _forget()
    assert not [finder for finder in sys.meta_path if isinstance(finder, RecordedCode)]


def _forget() -> None:
    for name in MODULES:
        sys.modules.pop(name, None)


def register(store: Store, folder: Path, factor: int, late: str = "") -> Any:
    """A version whose models' class is in modules that only its project has."""
    project = folder / f"project{factor}{late}"
    (project / "rc_parts").mkdir(parents=True)
    (project / "rc_fit.py").write_text(FIT)
    (project / "rc_shapes.py").write_text(SHAPES.format(late=late))
    (project / "rc_parts" / "__init__.py").write_text(f"FACTOR = {factor}\n")
    (project / "rc_parts" / "late.py").write_text("ONE = 1\n")
    sys.path.insert(0, str(project))
    try:
        importlib.invalidate_caches()
        fit = importlib.import_module("rc_fit").fit
        importlib.import_module("rc_parts.late")
        sweep = umbel.sweep(fit, space={"x": [1]}, over={"country": ["DEU", "FRA"]}, trials=1, metric="mae", mode="min")
        run = umbel.run(sweep, store=store.url, executor="inline", progress="quiet", fresh=True)
        return store.registry.register(run, model="gdp", inputs=[1.0])
    finally:
        sys.path.remove(str(project))
        _forget()


async def answer(client: Client, group: str = "FRA") -> Any:
    reply = await client.predict(group, [1.0])
    assert reply.status == 200, reply.content
    return reply.content["outputs"]


def test_modules_come_from_the_sources_of_the_run(store: Store, tmp_path: Path) -> None:
    version = register(store, tmp_path, 3)
    promote(store, 1)
    with pytest.raises(StoreError, match="rc_shapes"):
        version.load("FRA", trust=True)

    async def run() -> None:
        async with serving(store, cached_groups=1) as client:
            assert await answer(client, "DEU") == [3.0]
            assert await answer(client, "FRA") == [3.0]
            assert "umbel-code-" in str(sys.modules["rc_parts.late"].__file__)
        assert "rc_shapes" not in sys.modules

    asyncio.run(run())


def test_they_do_so_when_the_run_is_deleted(store: Store, tmp_path: Path) -> None:
    version = register(store, tmp_path, 3)
    promote(store, 1)
    shutil.rmtree(Path(store.url) / "runs" / str(version.row("FRA")["run"]))

    async def run() -> None:
        async with serving(store) as client:
            assert await answer(client) == [3.0]

    asyncio.run(run())


def test_another_source_of_a_module_in_use_is_refused(store: Store, tmp_path: Path) -> None:
    first, second = register(store, tmp_path, 3), register(store, tmp_path, 5)
    assert first.digest("FRA") == second.digest("FRA")  # a pickle does not tell its code
    register(store, tmp_path / "again", 3)
    promote(store, 1)

    async def run() -> None:
        async with serving(store) as client:
            assert await answer(client) == [3.0]
            promote(store, 2)
            await look(client)
            assert await answer(client) == [3.0]
            _, told = client.server.readiness
            assert told["serving"] == {"champion": 1}
            [problem] = told["problems"]
            for word in ("rc_parts", "version 1", "version 2"):
                assert word in problem["what"]
            promote(store, 3)  # of the same sources as the first
            await look(client)
            assert client.server.readiness[1] == {"status": "ready", "serving": {"champion": 3}, "problems": []}
            assert await answer(client) == [3.0]

    asyncio.run(run())


def test_the_first_alias_has_the_right_of_way(store: Store, tmp_path: Path) -> None:
    register(store, tmp_path, 3)
    register(store, tmp_path, 5)
    promote(store, 2)
    promote(store, 1, "challenger")

    async def run() -> None:
        async with serving(store, shadow="challenger") as client:
            assert client.server.readiness[1]["serving"] == {"champion": 2}
            assert await answer(client) == [5.0]
            [problem] = client.server.readiness[1]["problems"]
            assert (problem["alias"], problem["version"]) == ("challenger", 1)

    asyncio.run(run())


def test_what_a_refused_version_has_imported_is_in_nobodys_way(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(store, tmp_path, 3)
    register(store, tmp_path, 5)
    promote(store, 1)

    def refuse(model: Any, given: Any) -> Any:
        assert model.predict(given) != [3.0]

    monkeypatch.setattr("umbel.cluster.serving.versions.predict", refuse)

    async def run() -> None:
        async with serving(store) as client:
            assert client.server.readiness[1]["serving"] == {}
            promote(store, 2)
            await look(client)
            assert await answer(client) == [5.0]

    asyncio.run(run())


def test_sources_that_are_gone_leave_the_module_missing(store: Store, tmp_path: Path) -> None:
    register(store, tmp_path, 3)
    promote(store, 1)
    shutil.rmtree(Path(store.url) / "code")

    async def run() -> None:
        async with serving(store) as client:
            [problem] = client.server.readiness[1]["problems"]
            assert "No module named 'rc_shapes'" in problem["what"]

    asyncio.run(run())


def test_without_trust_no_code_is_imported(store: Store, tmp_path: Path) -> None:
    register(store, tmp_path, 3)
    promote(store, 1)

    async def run() -> None:
        from umbel.cluster.serving.settings import make_settings

        async with serving(store, make_settings("gdp", poll_s=3600.0)) as client:
            assert client.server.readiness[1]["serving"] == {}
            assert "rc_shapes" not in sys.modules

    asyncio.run(run())


def test_names_of_modules_are_guessed_from_paths() -> None:
    guessed = _guessed({"src/lib/__init__.py": "", "src/lib/net.py": "", "old/net.py": ""})
    assert {file: sorted(found["modules"]) for file, found in guessed.items()} == {
        "src/lib/__init__.py": ["lib", "src.lib"],
        "src/lib/net.py": ["lib.net", "src.lib.net"],
        "old/net.py": ["old.net"],
    }
