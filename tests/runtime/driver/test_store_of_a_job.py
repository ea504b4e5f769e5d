"""A store that would be lost with a job's folder is warned of."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import umbel


def test_a_store_in_rays_folder_of_a_job_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @umbel.task
    def one() -> int:
        return 1

    folder = tmp_path / "session_1" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("UMBEL_STORE", raising=False)
    with pytest.warns(UserWarning, match="thrown away with it; name another"):
        umbel.run(one.bind(), executor="inline", progress="quiet")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        umbel.run(one.bind(), store=str(tmp_path / "store"), executor="inline", progress="quiet")
