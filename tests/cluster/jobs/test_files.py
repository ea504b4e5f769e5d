"""What of a project goes along with a job."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from umbel.cluster.jobs.files import find_project, project_root, write_zip
from umbel.scheduler.errors import UsageError

FILES = {
    "pyproject.toml": "",
    "jobs/fit.py": "print(1)",
    "jobs/helper.py": "",
    "jobs/out.log": "noise",
    "data/big.bin": "x" * 1000,
    "data/keep.csv": "a,b",
    "data/.gitignore": "*\n!keep.csv\n!.gitignore\n",
    ".gitignore": "*.log\n/build/\ncaf*\n",
    "build/deep/thing.py": "",
    "other/build/thing.py": "",
    "caf\u00e9.txt": "",
    "env/pyvenv.cfg": "",
    "env/lib/huge.py": "",
    "results/umbel.json": "{}",
    "results/runs/gdp/run.json": "{}",
    "jobs/__pycache__/fit.pyc": "",
    "src/models/__init__.py": "",
    "src/models/net.py": "",
    "src/umbel/__init__.py": "",
}
SHIPPED = {
    "pyproject.toml",
    "jobs/fit.py",
    "jobs/helper.py",
    "data/keep.csv",
    "data/.gitignore",
    ".gitignore",
    "other/build/thing.py",
    "src/models/__init__.py",
    "src/models/net.py",
    "src/umbel/__init__.py",
}


@pytest.fixture(params=["git", "no git"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    if request.param == "git":
        git(tmp_path, "init", "-q")
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


def test_what_git_keeps_goes_along_and_environments_and_stores_do_not(project: Path) -> None:
    found = find_project(project / "jobs" / "fit.py")
    assert (found.root, found.file) == (project, "jobs/fit.py")
    assert set(found.files) == SHIPPED
    assert list(found.files) == sorted(found.files)
    assert found.size_bytes == sum((project / name).stat().st_size for name in SHIPPED)


def test_packages_in_src_are_found_but_for_umbel_itself(project: Path) -> None:
    assert find_project(project / "jobs" / "fit.py").packages_in_src() == ["src/models"]


def test_the_file_goes_along_even_if_it_is_ignored(project: Path) -> None:
    (project / "jobs" / "run.log").write_text("")
    assert "jobs/run.log" in find_project(project / "jobs" / "run.log").files


def test_what_was_deleted_is_no_longer_there(project: Path) -> None:
    if (project / ".git").exists():
        git(project, "add", "-A")
    (project / "jobs" / "helper.py").unlink()
    assert set(find_project(project / "jobs" / "fit.py").files) == SHIPPED - {"jobs/helper.py"}


def test_a_folder_without_project_is_the_project(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "fit.py").write_text("")
    (tmp_path / "b.py").write_text("")
    found = find_project(tmp_path / "a" / "fit.py")
    assert (found.root, found.files) == (tmp_path / "a", ("fit.py",))
    assert find_project(tmp_path / "a" / "fit.py", root=tmp_path).files == ("a/fit.py", "b.py")


def test_the_nearest_project_is_meant(tmp_path: Path) -> None:
    inner = tmp_path / "services" / "fit"
    inner.mkdir(parents=True)
    (inner / "pyproject.toml").write_text("")
    git(tmp_path, "init", "-q")
    (tmp_path / "outside.py").write_text("")
    (inner / "fit.py").write_text("")
    assert project_root(inner / "fit.py") == inner
    assert find_project(inner / "fit.py").files == ("fit.py", "pyproject.toml")


def test_a_folder_that_the_repository_around_it_ignores_is_shipped_all_the_same(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("scratch/\n")
    (tmp_path / "scratch").mkdir()
    for name in ("pyproject.toml", "fit.py", "helper.py"):
        (tmp_path / "scratch" / name).write_text("")
    assert find_project(tmp_path / "scratch" / "fit.py").files == ("fit.py", "helper.py", "pyproject.toml")


def test_repositories_inside_go_along_by_their_own_rules(tmp_path: Path) -> None:
    inner = tmp_path / "vendor"
    inner.mkdir()
    (inner / "lib.py").write_text("")
    (inner / "lib.log").write_text("")
    (inner / ".gitignore").write_text("*.log\n")
    (tmp_path / "fit.py").write_text("")
    git(tmp_path, "init", "-q")
    git(inner, "init", "-q")
    assert find_project(tmp_path / "fit.py").files == ("fit.py", "vendor/.gitignore", "vendor/lib.py")


def test_links_to_files_go_along_and_links_to_folders_are_told(project: Path) -> None:
    (project / "jobs" / "link.py").symlink_to("helper.py")
    (project / "linked").symlink_to("data")
    found = find_project(project / "jobs" / "fit.py")
    assert "jobs/link.py" in found.files
    assert found.left_out == ("linked",)
    assert not [name for name in found.files if name.startswith("linked")]


def test_too_large_a_project_is_refused_with_its_largest_files(project: Path) -> None:
    (project / "large.npy").write_bytes(b"x" * 3 * 2**20)
    (project / "larger.npy").write_bytes(b"x" * 5 * 2**20)
    with pytest.raises(UsageError) as refused:
        find_project(project / "jobs" / "fit.py", limit_bytes=2**20)
    assert "larger.npy (5.0 MiB), large.npy (3.0 MiB)" in refused.value.what
    assert refused.value.got == f"8.0 MiB in {len(SHIPPED) + 2} files"
    assert refused.value.hint is not None
    assert ".gitignore" in refused.value.hint
    assert "--max-size" in refused.value.hint
    find_project(project / "jobs" / "fit.py", limit_bytes=9 * 2**20)


def test_what_can_not_be_shipped_is_said(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        find_project(project / "jobs" / "none.py")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.raises(UsageError, match="does not lie in the folder"):
        find_project(project / "jobs" / "fit.py", root=elsewhere)


def test_equal_files_make_equal_archives(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("archives")
    write_zip(find_project(project / "jobs" / "fit.py"), folder / "a.zip")
    (project / "jobs" / "fit.py").touch()
    write_zip(find_project(project / "jobs" / "fit.py"), folder / "b.zip")
    assert (folder / "a.zip").read_bytes() == (folder / "b.zip").read_bytes()
    (project / "jobs" / "fit.py").write_text("print(2)")
    write_zip(find_project(project / "jobs" / "fit.py"), folder / "b.zip")
    assert (folder / "a.zip").read_bytes() != (folder / "b.zip").read_bytes()
