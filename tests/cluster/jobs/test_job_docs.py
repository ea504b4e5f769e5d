"""The examples of docs/jobs.md are of the form that they claim, and its options and statuses exist."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import yaml
from typer.main import get_command

from umbel.cluster.cli.app import app

TEXT = (Path(__file__).parents[3] / "docs" / "jobs.md").read_text()


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
