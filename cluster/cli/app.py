"""The whole `umbel` command: the runtime's commands, and those of this layer.

The runtime must not know what is built upon it, so the command is put together here, where pyproject.toml's entry
point leads. Each module of this folder holds a command or a group of them and has ``register(app)``; like the
runtime's, commands import what they need when they run, so that `umbel --help` answers at once.
"""

from __future__ import annotations

from umbel.cluster.cli import cluster, jobs, manifest, serve, top
from umbel.runtime.cli.app import app, main

__all__ = ["app", "main"]

for commands in (cluster, jobs, manifest, serve, top):
    commands.register(app)
