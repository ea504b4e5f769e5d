"""The other end of `tests.bench.isolation`: run one function in this process and leave its answer in a file."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path


def main(function: str, arguments: str, answer: str) -> None:
    """Run ``module:function`` with JSON arguments; write what it returns as JSON."""
    module, _, name = function.partition(":")
    returned = getattr(import_module(module), name)(**json.loads(arguments))
    Path(answer).write_text(json.dumps(returned), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
