"""Where a project's folder is."""

from __future__ import annotations

from pathlib import Path

from umbel.runtime.provenance.project import nearest


def test_the_nearest_folder_with_one_of_the_names_is_found(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "a" / ".git").mkdir()
    (tmp_path / "pyproject.toml").touch()
    assert nearest(inner, "pyproject.toml") == tmp_path
    assert nearest(inner, "pyproject.toml", ".git") == tmp_path / "a"
    assert nearest(inner, "there-is-no-such-file-anywhere") is None
