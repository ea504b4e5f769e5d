"""What is installed is what is on disk, imports stay cheap, and the public names are what they are meant to be."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import umbel
from umbel.scheduler import errors

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after running some code."""
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_package_on_disk_is_in_the_wheel() -> None:
    folders = PROJECT["tool"]["setuptools"]["package-dir"]
    on_disk = set()
    for package, folder in folders.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inside = init.parent.relative_to(ROOT / folder).parts
            if not (package == "umbel" and inside):  # the links in src/umbel lead to the other folders
                on_disk.add(".".join([package, *inside]))
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == on_disk


def test_the_links_for_editors_lead_to_the_packages() -> None:
    for name in ("runtime", "scheduler", "storage", "cluster"):
        link = ROOT / "src" / "umbel" / name
        assert link.is_symlink()
        assert link.resolve() == (ROOT / name).resolve()


@pytest.mark.ray
def test_the_wheel_holds_all_modules_and_the_command(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT], check=True
    )
    (wheel,) = tmp_path.glob("umbel-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("runtime", "scheduler", "storage", "cluster"):
        for module in (ROOT / folder).rglob("*.py"):
            assert f"umbel/{module.relative_to(ROOT)}" in names
    assert {"umbel/__init__.py", "umbel/py.typed", "umbel/cluster/serving/v1/predictor.proto"} <= names
    assert not [name for name in names if name.startswith(("tests/", "examples/"))]


def test_importing_umbel_loads_nothing_heavy() -> None:
    assert not loaded_by("import umbel") & {"ray", "pyarrow", "numpy", "optuna", "rich", "umbel.runtime"}


def test_the_pure_core_loads_no_ray_and_no_store() -> None:
    loaded = loaded_by("import umbel.scheduler.engine, umbel.scheduler.search.sampling")
    assert not loaded & {"ray", "pyarrow", "fsspec", "umbel.storage", "umbel.runtime"}


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom umbel.cluster.cli.app import main\nsys.argv = ['umbel', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )
    assert not loaded_by(code) & {"ray", "pyarrow", "numpy", "optuna", "pandas"}


def test_public_names_exist_are_documented_and_listed_once() -> None:
    assert len(umbel.__all__) == len(set(umbel.__all__))
    assert set(umbel.__all__) == set(umbel._HOME_OF)
    for name in umbel.__all__:
        assert inspect.getdoc(getattr(umbel, name)), name
    with pytest.raises(AttributeError, match="no_such_name"):
        umbel.no_such_name  # noqa: B018


ERROR_TREE = """
UmbelError
  UsageError
    TrialUsageError
    SpaceError
    GraphError
    CodeError
    NotFoundError
    AccessRefusedError
    UntrustedError
    ResumeMismatchError
  StoreError
    StoreFullError
    StoreUnavailableError
    StoreConflictError
    StoreCorruptError
    RunHeldError
  ExecutorError
    ClusterUnavailableError
  RunStoppedError
  ElementFailedError
  PromotionRefusedError
  RunInterrupted
  InternalError
"""


def test_the_tree_of_errors() -> None:
    def tree(cls: type[errors.UmbelError], depth: int = 0) -> list[str]:
        children = [child for child in type.__subclasses__(cls) if child.__module__ == errors.__name__]
        return ["  " * depth + cls.__name__, *(line for child in children for line in tree(child, depth + 1))]

    assert "\n".join(tree(errors.UmbelError)) == ERROR_TREE.strip()
    assert set(errors.__all__) == {line.strip() for line in ERROR_TREE.split("\n") if line.strip()}


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_survive_pickling_with_their_fields(name: str) -> None:
    error = getattr(errors, name)("it broke", got=[1], expected="that it holds", hint="mend it")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert (back.what, back.got, back.expected, back.hint) == ("it broke", "[1]", "that it holds", "mend it")
    assert str(back) == str(error) == "it broke\n  got:      [1]\n  expected: that it holds\n  to do:    mend it"


def test_the_interrupted_error_ends_a_script_with_130() -> None:
    script = "import umbel\nraise umbel.RunInterrupted('stopped')"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 130
