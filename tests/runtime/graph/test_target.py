"""What is said when the user's file makes a mistake with Umbel."""

from __future__ import annotations

from pathlib import Path

import pytest

from umbel.runtime.graph.target import load_target
from umbel.scheduler.errors import SpaceError


def test_a_mistake_at_import_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "wrong_space.py"
    file.write_text(
        "import umbel\n\n\ndef trial(config):\n    return {'loss': 0.0}\n\n\n"
        "graph = umbel.sweep(trial, space={'x': object()}, search='nothing', metric='loss')\n"
    )
    with pytest.raises(SpaceError, match=r"\(wrong_space.py, line 8\)"):
        load_target(str(file))
