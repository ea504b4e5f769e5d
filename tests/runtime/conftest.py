"""What the tests of the runtime share: one Ray in this process."""

from __future__ import annotations

import logging

import pytest
import ray


@pytest.fixture(scope="module")
def two_processors() -> None:
    """Ray in this process, with two processors whatever the machine has; up already when a run begins.

    It stays for the next module that asks for it, since a start takes seconds, and ends with this process.
    """
    if ray.is_initialized() and ray.cluster_resources().get("CPU") != 2:
        ray.shutdown()
    if not ray.is_initialized():
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
