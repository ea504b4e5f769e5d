"""The other end of `tests.bench.isolation`: run one function in this process and leave its answer in a file.

The answer also says how much of the machine others used meanwhile: only from here can this session's share be
told apart.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

from tests.bench.machine import OthersMeter


def main(function: str, arguments: str, answer: str) -> None:
    """Run ``module:function`` with JSON arguments; write what it returns, and ``others``, as JSON."""
    meter = OthersMeter()
    module, _, name = function.partition(":")
    returned = {**getattr(import_module(module), name)(**json.loads(arguments)), "others": meter.share()}
    Path(answer).write_text(json.dumps(returned), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
