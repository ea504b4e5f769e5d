"""What is this thing, does it belong to the user's project, and what is it called?

The project is all code that is not Python's, an installed package's or Umbel's: scripts, notebooks, shells, modules
beside a script, packages installed in editable mode. It must not read source or follow references.
"""

from __future__ import annotations

import functools
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

__all__ = [
    "MISSING",
    "attribute_of",
    "function_of_task",
    "in_project",
    "is_code",
    "is_project",
    "label",
    "module_name",
    "nearest",
    "qualified_name",
]

#: Tasks made of tasks are seen through to this depth; some objects answer to every attribute, so there is one.
_NESTED_TASKS = 8
#: What `attribute_of` returns for an attribute that is not there.
MISSING = object()


@lru_cache(maxsize=4096)
def _installed(filename: str) -> bool:
    """Whether a path lies in the standard library or among installed packages."""
    path = Path(filename).absolute()  # not resolved: some installers fill site-packages with links
    if "site-packages" in path.parts or "dist-packages" in path.parts:
        return True
    roots = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    return any(path.is_relative_to(root) for root in roots if root)


def is_project(filename: str | None, module: str | None) -> bool:
    """Whether code belongs to the user's project: not to Python, to an installed package or to Umbel.

    Args:
        filename: the file that the code says it comes from; ``None`` or ``"<…>"`` when there is none.
        module: the name of the module in whose namespace it lives.

    Cost: cached per file.
    """
    if module is not None and (module == "umbel" or module.startswith("umbel.")):
        return False
    if filename is not None and not filename.startswith("<"):
        return not _installed(filename)
    if filename is not None and filename.startswith("<frozen"):
        return False
    if module == "__main__":
        return True  # also under a profiler or debugger, which stays in its place
    home = getattr(sys.modules.get(module or ""), "__file__", None)
    if isinstance(home, str):
        return not _installed(home)  # a generated method belongs to its module
    return module not in sys.stdlib_module_names  # no file at all: a shell, a notebook, exec; or built into Python


def nearest(folder: Path, *names: str) -> Path | None:
    """The folder itself, or the nearest one above it, that holds one of these files or folders; None: there is none."""
    for place in (folder, *folder.parents):
        if any((place / name).exists() for name in names):
            return place
    return None


def module_name(namespace: dict[str, Any]) -> str:
    """The name under which a module would be imported, also while it runs as ``__main__``."""
    name = namespace.get("__name__")
    if name != "__main__":
        return str(name)
    spec = namespace.get("__spec__")
    if spec is not None:
        return str(spec.name)
    file = namespace.get("__file__")
    return Path(file).stem if isinstance(file, str) else "__main__"


def function_of_task(obj: Any) -> Any:
    """The user's function inside a task; anything else as it is."""
    for _ in range(_NESTED_TASKS):
        inner = attribute_of(obj, "__umbel_function__")
        if not callable(inner):
            break
        obj = inner
    return obj


def attribute_of(obj: Any, name: str) -> Any:
    """The attribute, or `MISSING`; never raises."""
    try:
        return getattr(obj, name, MISSING)
    except Exception:  # an attribute may be any code
        return MISSING


def is_code(obj: Any) -> bool:
    """Whether a thing is code with a name: function, class, module, or a wrapper like that of ``lru_cache``."""
    if isinstance(obj, FunctionType | type | ModuleType):
        return True
    if not callable(obj) or isinstance(obj, functools.partial) or in_project(type(obj)):
        return False
    return callable(attribute_of(obj, "__wrapped__"))


def in_project(obj: Any) -> bool:
    """Whether a function, class or module belongs to the project; False for anything else."""
    if isinstance(obj, FunctionType):
        return is_project(obj.__code__.co_filename, obj.__globals__.get("__name__"))
    if isinstance(obj, type):
        return is_project(None, obj.__module__)
    if isinstance(obj, ModuleType):
        places = getattr(obj, "__path__", None)  # a namespace package has no file
        return is_project(getattr(obj, "__file__", None) or next(iter(places or ()), None), obj.__name__)
    return False


def qualified_name(obj: Any) -> str:
    """The full name of code: its module, and its place in it."""
    if isinstance(obj, FunctionType):
        code = obj.__code__  # by where its code stands: decorators give their functions the names of others
        return f"{module_name(obj.__globals__)}.{obj.__qualname__ if _generated(code) else code.co_qualname}"
    if isinstance(obj, type):
        home = sys.modules.get(obj.__module__)
        return f"{module_name(vars(home)) if home is not None else obj.__module__}.{obj.__qualname__}"
    if isinstance(obj, ModuleType):
        return module_name(vars(obj))
    return f"{qualified_name(obj.__wrapped__)}[{type(obj).__name__}]"


def _generated(code: CodeType) -> bool:
    return code.co_filename.startswith("<string>")  # the methods of a dataclass have no place of their own


def label(obj: Any) -> str:
    """The name of code inside a digest: project code without its module, which differs for a script."""
    if isinstance(obj, FunctionType):
        module, name = str(obj.__globals__.get("__name__")), obj.__code__.co_qualname
    elif isinstance(obj, type):
        module, name = obj.__module__, obj.__qualname__
    elif isinstance(obj, ModuleType):
        module, name = obj.__name__, ""
    else:
        return f"wrapped by {label(type(obj))}"
    return name if in_project(obj) else f"{module}:{name}"
