"""What options become, and what is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from umbel.cluster.jobs.files import Project
from umbel.cluster.jobs.request import (
    Target,
    asker,
    check_store,
    default_name,
    entrypoint,
    environment_variables,
    parse_target,
    read_requirements,
    read_runtime_env,
    same_environment,
    with_packages,
)
from umbel.scheduler.errors import UsageError

PROJECT = Project(Path("/home/ada/my project"), "jobs/fit it.py", ("jobs/fit it.py",), 10)


@pytest.mark.parametrize(
    ("text", "file", "name"),
    [
        ("jobs/fit.py", "jobs/fit.py", None),
        ("jobs/fit.py:graph", "jobs/fit.py", "graph"),
        ("C:\\jobs\\fit.py", "C:\\jobs\\fit.py", None),
        ("C:\\jobs\\fit.py:graph", "C:\\jobs\\fit.py", "graph"),
    ],
)
def test_targets(text: str, file: str, name: str | None) -> None:
    assert parse_target(text) == Target(Path(file), name)


def test_names_are_those_that_umbel_run_gives() -> None:
    assert default_name(parse_target("jobs/fit.py")) == "fit"
    assert default_name(parse_target("jobs/fit.py:graph")) == "fit"
    assert default_name(parse_target("jobs/fit.py:small")) == "fit-small"
    with pytest.raises(UsageError, match="name of a job"):
        default_name(parse_target("jobs/fit it.py"))


def test_commands_are_quoted_for_the_shell() -> None:
    target = Target(Path("fit it.py"), None)
    args = ["--note", "it's $HOME; rm -rf /"]
    quoted = "--note 'it'\"'\"'s $HOME; rm -rf /'"
    assert entrypoint(PROJECT, target, script=True, name="fit", args=args) == (f"exec python 'jobs/fit it.py' {quoted}")
    assert entrypoint(PROJECT, target, script=False, name="fit", args=args) == (
        f"exec python -m umbel run 'jobs/fit it.py' --name fit {quoted}"
    )
    assert entrypoint(PROJECT, Target(Path("x"), "small"), script=False, name="n", args=[]) == (
        "exec python -m umbel run 'jobs/fit it.py:small' --name n"
    )


def test_variables_are_given_or_taken_from_here() -> None:
    found = environment_variables(["A=1", "B=x=y", "EMPTY=", "HF_TOKEN"], {"HF_TOKEN": "sesame"})
    assert found == {"A": "1", "B": "x=y", "EMPTY": "", "HF_TOKEN": "sesame"}


@pytest.mark.parametrize("text", ["=sesame", "A B=sesame", "1A=sesame"])
def test_the_values_of_wrong_variables_are_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        environment_variables([text], {})
    assert "sesame" not in str(refused.value)
    with pytest.raises(UsageError, match="no such variable"):
        environment_variables(["NOT_THERE"], {})


def test_a_job_needs_a_store_that_outlives_it() -> None:
    def check(store: str | None, *args: str, script: bool = False, **variables: str) -> str | None:
        return check_store(store, script=script, args=args, variables=variables)

    assert check("s3://bucket/team") == "s3://bucket/team"
    assert check("/shared/store") == "/shared/store"
    assert check(None, script=True) is None
    assert check(None, "--store", "s3://bucket/team") is None
    assert check(None, "--store=/shared") is None
    assert check(None, UMBEL_STORE="/shared") is None
    assert check(None, "-s", "scale", script=True) is None  # a script's own
    with pytest.raises(UsageError, match="needs a store"):
        check(None)
    for args in (["--store", "./x"], ["--store=x"], ["-s", "x"]):
        with pytest.raises(UsageError, match="relative"):
            check(None, *args)
    with pytest.raises(UsageError, match="relative"):
        check("umbel-store")
    for script in (False, True):
        with pytest.raises(UsageError, match="relative"):
            check(None, "--store", "./x", script=script)
        with pytest.raises(UsageError, match="relative"):
            check(None, script=script, UMBEL_STORE="./x")


def test_a_store_is_named_without_credentials() -> None:
    url = "s3://key:sesame@bucket/team"
    for store, args, variables in ((url, [], {}), (None, ["--store", url], {}), (None, [], {"UMBEL_STORE": url})):
        with pytest.raises(UsageError, match="holds a credential") as refused:
            check_store(store, script=False, args=args, variables=variables)
        assert "sesame" not in str(refused.value)


def test_a_job_is_told_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMBEL_USER", "ada")
    assert asker({}) == {"UMBEL_USER": "ada"}
    assert asker({"UMBEL_SHARE": "weight=2"}) == {"UMBEL_USER": "ada", "UMBEL_SHARE": "weight=2"}
    mine, theirs = {"A": "1", "UMBEL_USER": "ada"}, {"A": "1", "UMBEL_USER": "bob", "UMBEL_SHARE": "weight=2"}
    assert same_environment(mine, {"env_vars": theirs})
    assert not same_environment(mine | {"A": "2"}, {"env_vars": theirs})


def test_runtime_envs_are_read_from_files_and_text(tmp_path: Path) -> None:
    file = tmp_path / "env.yaml"
    file.write_text("pip: [numpy]\nenv_vars: {A: '1'}\n")
    assert read_runtime_env(None) == {}
    assert read_runtime_env(str(file)) == {"pip": ["numpy"], "env_vars": {"A": "1"}}
    assert read_runtime_env('{"pip": ["numpy"]}') == {"pip": ["numpy"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("none.yaml", "can't be read"),
        ('{"pip": [', "can't be read"),
        ('{"working_dir": "."}', "working_dir"),
        ('{"env_vars": {"SECRET": 5}}', "mapping of strings"),
        ('{"env_var": {"A": "1"}}', r"(?s)'env_var' in the JSON.*did you mean env_vars"),
        ("file.yaml", "not a mapping"),
    ],
)
def test_wrong_runtime_envs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.yaml").write_text("- a\n")
    with pytest.raises(UsageError, match=said):
        read_runtime_env(text)


def test_requirements_are_read_as_pip_does(tmp_path: Path) -> None:
    (tmp_path / "base.txt").write_text("numpy>=1.26\n")
    file = tmp_path / "requirements.txt"
    file.write_text("# ours\n-r base.txt\nscikit-learn==1.5  # pinned\n\n--extra-index-url https://u:p@host/simple\n")
    assert read_requirements(file) == [
        "numpy>=1.26",
        "scikit-learn==1.5",
        "--extra-index-url https://u:p@host/simple",
    ]
    file.write_text("numpy\n-e .\n")
    with pytest.raises(UsageError, match="this machine"):
        read_requirements(file)
    with pytest.raises(UsageError, match="can't be read"):
        read_requirements(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"pip": ["optuna"]}),
        ({"pip": ["numpy"]}, {"pip": ["numpy", "optuna"]}),
        (
            {"pip": {"packages": ["numpy"], "x": 1}},
            {"pip": {"packages": ["numpy", "optuna"], "x": 1}},
        ),
        ({"uv": ["numpy"]}, {"uv": ["numpy", "optuna"]}),
    ],
)
def test_packages_are_added(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert with_packages(before, ["optuna"]) == after
    assert with_packages(before, []) == before


def test_packages_are_not_added_to_what_is_whole() -> None:
    with pytest.raises(UsageError, match="conda") as refused:
        with_packages({"conda": "team"}, ["optuna", "--index-url https://ada:sesame@host"])
    assert "sesame" not in str(refused.value)
