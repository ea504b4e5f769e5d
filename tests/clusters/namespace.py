"""Runs a script in namespaces of its own, for clusters whose start and stop end every Ray that they can see."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent


def require_namespaces() -> None:
    """Skip the test where namespaces can't be made."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs root, unshare and ip, to run a cluster in namespaces of its own")
    probe = subprocess.run(["unshare", "--pid", "--mount", "--net", "--fork", "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"namespaces can't be made here: {probe.stderr.decode().strip()}")


def run_in_namespace(script: Path, folder: Path, *arguments: str, timeout_s: float) -> Any:
    """Run a script that prints JSON as its last line; returns that.

    The script sees no other process, has only a loopback network, and its own ``/tmp/ray``. When it ends, whatever it
    started ends too, because its process 1 does.
    """
    ray_folder = folder / "ray"
    ray_folder.mkdir()
    command = shlex.join([sys.executable, str(script), *arguments])
    # bash stays process 1, so that zombies are reaped.
    inside = (
        f"ip link set lo up; mkdir -p /tmp/ray; mount --bind {shlex.quote(str(ray_folder))} /tmp/ray; "
        f"cd {shlex.quote(str(folder))}; {command}; exit $?"
    )
    environment = {
        **{key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "UMBEL_STORE")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "PYTHONUNBUFFERED": "1",
        # A node that dies is noticed in half a second instead of twenty.
        "RAY_health_check_period_ms": "300",
        "RAY_health_check_timeout_ms": "500",
        "RAY_health_check_failure_threshold": "2",
        "RAY_health_check_initial_delay_ms": "500",
    }
    done = subprocess.run(
        ["unshare", "--pid", "--mount", "--net", "--fork", "--mount-proc", "bash", "-c", inside],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    return json.loads(done.stdout.strip().splitlines()[-1])
