"""Many small PyTorch models trained as one, `fit_many` (docs/fused.md); and modules that are registered without a
pickle, `builder` (docs/models.md).

Needs the extra ``torch`` (``pip install 'umbel[torch]'``). Importing this module loads nothing; PyTorch is loaded when
a name of it is first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from umbel.runtime.torch.builder import builder
    from umbel.runtime.torch.fit import fit_many
    from umbel.runtime.torch.fitted import Fitted

__all__ = ["Fitted", "builder", "fit_many"]

_HOME_OF = {
    "Fitted": "umbel.runtime.torch.fitted",
    "builder": "umbel.runtime.torch.builder",
    "fit_many": "umbel.runtime.torch.fit",
}


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'umbel.torch' has no attribute {name!r}")
    if find_spec("torch") is None:
        from umbel.scheduler.errors import UsageError

        raise UsageError(
            "umbel.torch needs a package that is not installed",
            got="no torch",
            expected="the extra",
            hint="pip install 'umbel[torch]'",
        )
    value = getattr(import_module(home), name)
    globals()[name] = value  # the next look-up is free
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
