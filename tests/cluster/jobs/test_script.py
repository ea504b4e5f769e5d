"""Which files are scripts that run something, and which describe graphs."""

from __future__ import annotations

from pathlib import Path

import pytest

from umbel.cluster.jobs.script import runs_itself
from umbel.scheduler.errors import UsageError


@pytest.mark.parametrize(
    ("source", "script"),
    [
        ("import umbel\ngraph = umbel.sweep(f, space={})", False),
        ("def graph():\n    return 1\nif __name__ == '__main__':\n    graph()", True),
        ("if '__main__' == __name__:\n    pass", True),
        ("if __name__ != '__main__':\n    x = 1", False),
        ("if __name__.startswith('a'):\n    x = 1", False),
        ("import umbel\nrun = umbel.run(graph, store='s3://b/c')\nprint(run.best())", True),
        ("import umbel\nfor seed in range(3):\n    umbel.run(graph(seed))", True),
        ("import umbel as u\nu.run(graph)", True),
        ("import umbel.torch\numbel.run(graph)", True),
        ("from umbel import run\nrun(graph)", True),
        ("from umbel import run as go, sweep\nwith x:\n    y = go(graph)", True),
        ("from subprocess import run\nrun(['ls'])", False),
        ("import asyncio\nasyncio.run(f())", False),
        ("results = Tuner(train).fit()", True),
        ("tuner = Tuner(train)\nprint(tuner.fit())", True),
        ("model = Ridge().fit(X, y)\ngraph = sweep(model)", False),
        ("model.fit(X=x)", False),
        ("def main():\n    umbel.run(graph)", False),
        ("def main():\n    graph\nmain()", True),
        ("import sys\nfrom app import main\nsys.exit(main())", True),
        ("import umbel\ndef go():\n    umbel.run(graph)\ndef start():\n    go()\nstart()", True),
        ("import umbel\ndef go():\n    umbel.run(graph)\nlater = lambda: go()", False),
        ("class Model:\n    def train(self):\n        self.net.fit()", False),
        ("", False),
    ],
)
def test_scripts_are_told_from_graphs(tmp_path: Path, source: str, script: bool) -> None:
    file = tmp_path / "fit.py"
    file.write_text(source)
    assert runs_itself(file) is script


def test_what_is_not_python_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "fit.py"
    file.write_text("def (")
    with pytest.raises(UsageError, match="not Python"):
        runs_itself(file)
