"""The whole `umbel` command: the runtime's commands, and those of this layer.

The runtime must not know what is built upon it, so the command is put together here, where pyproject.toml's entry
point leads. A module ``cli_<what>.py`` of this folder holds a command or a group of them and has ``register(app)``;
like the runtime's, commands import what they need when they run, so that `umbel --help` answers at once.
"""

from __future__ import annotations

from umbel.cluster import cli_cluster, cli_jobs, cli_manifest, cli_serve, cli_top
from umbel.runtime.cli import app, main

__all__ = ["app", "main"]

cli_cluster.register(app)
cli_jobs.register(app)
cli_manifest.register(app)
cli_serve.register(app)
cli_top.register(app)
