"""A real PostgreSQL server for tests: started in a folder of its own, on a free port, and ended by its process id."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

__all__ = ["PASSWORD", "postgres"]

#: What tests look for where it must not be.
PASSWORD = uuid4().hex
DEADLINE_S = 60.0


def _program(name: str) -> str:
    """The path of one of PostgreSQL's programs; the newest version, where Debian keeps several."""
    found = shutil.which(name)
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    if found is None and not versions:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    return found or str(versions[-1])


@contextmanager
def postgres() -> Iterator[str]:
    """A server with a user "ada"; gives its URI, password included."""
    initdb, server = _program("initdb"), _program("postgres")
    as_user: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="umbel-postgres-"))
    process = None
    try:
        if os.geteuid() == 0:  # the server refuses to run as root
            user = next(name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()})
            as_user = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
            shutil.chown(folder, user)
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        data = folder / "data"
        subprocess.run(
            [initdb, "-D", data, "-U", "ada", "-A", "scram-sha-256", f"--pwfile={folder}/password", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=folder,
            **as_user,
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [server, "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-c", "fsync=off"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                **as_user,
            )
        uri = f"postgresql://ada:{PASSWORD}@127.0.0.1:{port}/postgres"
        _wait_for(uri, process, folder / "log")
        yield uri
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # end at once, in good order
            process.wait(DEADLINE_S)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi")
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            dbapi.connect(uri).close()
        except Exception:
            said = log.read_text(errors="replace")
            assert process.poll() is None, said
            assert time.monotonic() < end, said
            time.sleep(0.05)
        else:
            return
