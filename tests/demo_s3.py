"""`make demo-s3`: the example against a real S3 server that is started for it and ended after it.

    python -m tests.demo_s3 [--countries 12 ...]

Options are those of `examples/gdp.py`. Credentials and endpoint are given as everywhere: by the environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.seaweedfs import seaweedfs

ROOT = Path(__file__).parent.parent


def main(options: Sequence[str]) -> int:
    """Run the example twice, the second time to see that everything is done already; returns the exit status."""
    with tempfile.TemporaryDirectory(prefix="umbel-s3-") as folder, seaweedfs(Path(folder)) as server:
        environment = {**os.environ, **server.environment}
        store = server.url("demo")
        print(f"S3 at {server.endpoint}, store {store}", flush=True)
        demo = [sys.executable, str(ROOT / "examples" / "gdp.py"), "--store", store, *options]
        listing = [str(Path(sys.executable).with_name("umbel")), "ls", "--store", store]
        for command in (demo, demo, listing):
            status = subprocess.run(command, env=environment, check=False).returncode
            if status:
                return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
