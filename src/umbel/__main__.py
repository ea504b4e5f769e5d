"""`python -m umbel`: the umbel command where no script of that name is installed."""

from __future__ import annotations

from umbel.cluster.cli.app import main

if __name__ == "__main__":
    main()
