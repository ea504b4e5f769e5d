"""The examples of docs/jobs.md are of the form that they claim, and commands that pages name can be called so."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from click import Group
from typer.main import get_command

from umbel.cluster.cli.app import app

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "jobs.md").read_text()
README = (ROOT / "README.md").read_text().partition("## Running it on a cluster")[2].partition("\n## ")[0]


def examples(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert found, language
    return found


def test_python_compiles() -> None:
    for example in examples("python"):
        compile(example, "docs/jobs.md", "exec")


def test_yaml_is_a_workflow_that_tries_again_on_75() -> None:
    (workflow,) = [yaml.safe_load(example) for example in examples("yaml")]
    (template,) = workflow["spec"]["templates"]
    assert template["name"] == workflow["spec"]["entrypoint"]
    assert "== 75" in template["retryStrategy"]["expression"]


def test_json_is_a_state_machine_without_loose_ends() -> None:
    (machine,) = [json.loads(example) for example in examples("json")]
    states = machine["States"]
    named = {machine["StartAt"], *re.findall(r'"(?:Next|Default)": "([^"]+)"', examples("json")[0])}
    assert named == set(states)


def test_the_line_of_cron_is_shell() -> None:
    (line,) = examples("sh")
    command = line.split(maxsplit=5)[5].replace("\\%", "%")
    subprocess.run(["sh", "-n", "-c", command], check=True)


def test_every_option_exists() -> None:
    command = get_command(app)
    commands = command.commands  # type: ignore[attr-defined]
    known = {
        option
        for name in ("submit", "attach", "stop", "jobs", "run")
        for p in commands[name].params
        for option in [*p.opts, *p.secondary_opts]
    }
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", re.sub(r"-- --\w+", "", TEXT)))
    assert named - known == {"--head", "--runtime-env-json"}  # of ray start, ray job submit


def commands(text: str) -> list[list[str]]:
    """The commands of umbel in blocks of shell."""
    lines = "\n".join(re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)).splitlines()
    words = [shlex.split(re.split(r"\s#|&&|>", line)[0]) for line in lines]
    return [each[1:] for each in words if each[:1] == ["umbel"]]


@pytest.mark.parametrize(
    "page", [README, TEXT, *((ROOT / "docs" / f"{name}.md").read_text() for name in ("clusters",))]
)
def test_every_command_is_understood(page: str) -> None:
    found = commands(page)
    assert len(found) >= 5
    for words in found:
        command, place = get_command(app), 0
        while isinstance(command, Group):
            command = command.commands[words[place]]
            place += 1
        command.make_context(words[place - 1], words[place:])  # raises for what is unknown or missing


def test_the_readme_shows_each_scheduler() -> None:
    (shown,) = re.findall(r"^```text\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    parts = dict(re.findall(r"^# (\w+).*\n((?:[^#\n].*\n)+)", shown, re.MULTILINE))
    assert list(parts) == ["cron", "Airflow", "Argo", "Step"]
    subprocess.run(["sh", "-n", "-c", parts["cron"].split(maxsplit=5)[5].replace("\\%", "%")], check=True)
    compile(parts["Airflow"], "README.md", "exec")
    assert "== 75" in yaml.safe_load(parts["Argo"])["retryStrategy"]["expression"]
    assert json.loads(parts["Step"])["NumericEquals"] == 75
    assert (
        json.loads(parts["Step"]).items() <= json.loads(examples("json")[0])["States"]["Again?"]["Choices"][0].items()
    )
