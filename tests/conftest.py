"""Settings for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.seaweedfs import S3Server, seaweedfs

# Several threads a process only get into each other's way where tests run side by side, PyTorch's most of all.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadlines: a busy machine is no defect. In CI the examples are the same every time.
settings.register_profile("umbel", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("umbel")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server, one for all tests of this session; a test that uses it carries the marker "ray"."""
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server
