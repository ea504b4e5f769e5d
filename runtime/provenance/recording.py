"""What must be stored of a graph, so that any of its trials can be run again from the store alone?

Of each sweep its function, pickled as for the workers; the source of its configs; and its data, if they are plain
values and not those of a node, which are stored anyway. Of the project's modules which file each one is, so that
functions that travel by name can be imported from the archive of sources. Credentials that functions have captured are
left out: what looks like one is replaced by its name, for the environment of whoever runs it again to fill in.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import cloudpickle

from umbel.runtime.driver.plan import Plan, PlannedNode
from umbel.runtime.driver.programs import InputKind, SweepProgram
from umbel.runtime.graph.nodes import Sweep
from umbel.runtime.leases.values import INLINE_LIMIT_BYTES
from umbel.runtime.provenance.credentials import SECRET_LENGTH, hidden_values
from umbel.runtime.provenance.reach import with_packages
from umbel.scheduler.errors import StoreCorruptError
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.redaction import REDACTED, is_secret_name, redact, redact_url
from umbel.storage.values.artifacts import get_artifact, put_artifact
from umbel.storage.values.codecs import encode
from umbel.storage.values.pickling import PICKLE_PROTOCOL, held_by

__all__ = ["load_function", "load_program", "modules_of", "record_programs", "source_files"]

#: A sweep's plain data above this are not stored for running trials again.
DATA_LIMIT_BYTES = 256 * 2**20
#: How deep what a function captures is searched for credentials, and how many things are looked at.
_DEPTH, _THINGS = 6, 5000
_FORMAT = 1


# ---- writing ---------------------------------------------------------------------------------------------------


def record_programs(plan: Plan, objects: ObjectStore) -> tuple[dict[str, str], list[str]]:
    """Store what running the trials of each sweep again takes.

    Returns:
        By sweep the digest that `load_program` takes; and the digests of the other artifacts that these need.

    Raises:
        StoreError: the store can't be written.

    Cost: one pickling of each function, and one encoding of each sweep's plain data.
    """
    found: dict[str, str] = {}
    needed: list[str] = []
    for planned in plan.nodes:
        node, program = planned.node, plan.programs.get(planned.id)
        if isinstance(node, Sweep) and isinstance(program, SweepProgram):
            content: dict[str, Any] = {
                "format": _FORMAT,
                "function": _pickled(pickle.loads(program.function)[0]),
                "source": _without_credentials(program),
                "code": program.code,
                "metrics": program.metrics,
                "data": _data(planned, objects) if node.has_data else None,
                "define": _define(program),
                "fusion": None if program.fusion is None else asdict(program.fusion),
            }
            data = content["data"] or {}
            needed += [digest for digest in data.get("digests", ()) if digest not in data["small"]]
            found[planned.name] = put_artifact(objects, encode(content))
    return found, sorted(set(needed))


def _without_credentials(program: SweepProgram) -> Any:
    hidden = hidden_values(program.source.space)
    return replace(program.source, space=hidden.space()) if hidden else program.source


def _define(program: SweepProgram) -> bytes | None:
    """The function that defines the space trial by trial, if there is one."""
    define = None if program.search is None else program.search.define
    return None if define is None else _pickled(define)


def _data(planned: PlannedNode, objects: ObjectStore) -> dict[str, Any]:
    """Where a sweep's data are: with a node, or stored here."""
    argument, source = planned.node.arguments[0], planned.sources[0]
    if source is not None:
        return {"from": "node"}
    items = [argument.source] if argument.kind is InputKind.ONE else argument.source
    assert isinstance(items, (list, tuple))
    if not all(map(_is_clean, items)):
        return {"from": "nowhere", "why": "they hold what looks like a credential, so they were not stored"}
    digests: list[str] = []
    small: dict[str, bytes] = {}
    size_bytes = 0
    for item in items:
        encoded = encode(item)
        digests.append(encoded.digest)
        size_bytes += len(encoded.data)
        if size_bytes > DATA_LIMIT_BYTES:
            limit = f"{DATA_LIMIT_BYTES / 2**20:.0f} MiB"
            return {"from": "nowhere", "why": f"they are larger than {limit}; a node's values are always stored"}
        if len(encoded.data) <= INLINE_LIMIT_BYTES:
            small[encoded.digest] = encoded.data
        else:
            put_artifact(objects, encoded)
    return {"from": "here", "digests": digests, "small": small}


def _is_clean(value: object) -> bool:
    """Whether plain data are free of what looks like a credential."""
    if not isinstance(value, (str, dict, list, tuple)):
        return True
    try:
        return bool(redact(value) == value)
    except Exception:  # arrays inside compare to arrays
        return True


def source_files(files: Iterable[Path]) -> list[Path]:
    """Source files with those of the packages that they are in, without which they can't be imported."""
    return sorted(map(Path, with_packages([str(path) for path in files])))


def modules_of(names: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Which module each source file is, for importing it from the archive.

    Args:
        names: the files by their names in the archive.

    Returns:
        By name in the archive: where the file lay, and the names of the modules that it is.
    """
    wanted = {str(path) for path in names.values()}
    modules: dict[str, list[str]] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file in wanted:
            modules.setdefault(file, []).append(name)
    return {
        name: {"path": str(path), "modules": sorted(set(modules.get(str(path), [])) - {"__main__"})}
        for name, path in sorted(names.items())
    }


# ---- functions without credentials -----------------------------------------------------------------------------


def _pickled(function: Any) -> bytes:
    """A function, pickled; the credentials that it has captured are replaced by their names."""
    sink = io.BytesIO()
    _Cleaner(sink, *_captured_credentials(function)).dump(function)
    return sink.getvalue()


class _Cleaner(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, sink: io.BytesIO, secrets: Mapping[str, str], in_code: set[str]) -> None:
        super().__init__(sink, protocol=PICKLE_PROTOCOL)
        self._secrets = secrets
        self._in_code = in_code

    def persistent_id(self, obj: Any) -> tuple[str, str] | None:
        if type(obj) is not str or len(obj) < SECRET_LENGTH:
            return None
        if obj in self._secrets:
            return self._secrets[obj], REDACTED
        if obj in self._in_code:
            return None  # the sources, which are stored as they are, hold it too
        cleaned = redact_url(obj)
        return None if cleaned == obj else ("", cleaned)


class _Filler(pickle.Unpickler):
    """Reads what `_Cleaner` wrote; credentials come from the environment, if it has them under the same name."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.missing: list[str] = []

    def persistent_load(self, pid: tuple[str, str]) -> str:
        name, text = pid
        if name and name in os.environ:
            return os.environ[name]
        self.missing.append(name or text)
        return text


def _captured_credentials(function: Any) -> tuple[dict[str, str], set[str]]:
    """What a function holds under names of credentials, or the environment under such, as value -> name.

    Texts that stand in its code are none, since the code is stored as it is; they are returned too.
    """
    found = {value: name for name, value in os.environ.items() if is_secret_name(name)}
    in_code: set[str] = set()
    seen: dict[int, object] = {}
    front: list[tuple[object, int]] = [(function, 0)]
    while front and len(seen) < _THINGS:
        thing, depth = front.pop()
        if id(thing) in seen or depth > _DEPTH:
            continue
        seen[id(thing)] = thing
        if isinstance(thing, FunctionType):
            in_code |= _texts_in(thing.__code__)
        for where, part in held_by(thing):
            name = where.partition("'")[2].rpartition("'")[0]
            if isinstance(part, str) and is_secret_name(name):
                found.setdefault(part, name)
            front.append((part, depth + 1))
    secrets = {value: name for value, name in found.items() if len(value) >= SECRET_LENGTH and value not in in_code}
    return secrets, in_code


def _texts_in(code: CodeType) -> set[str]:
    found = {*code.co_names, *code.co_varnames, *code.co_freevars, *code.co_cellvars, code.co_name, code.co_qualname}
    found.add(code.co_filename)
    for constant in code.co_consts:
        if isinstance(constant, str):
            found.add(constant)
        elif isinstance(constant, CodeType):
            found |= _texts_in(constant)
    return found


# ---- reading ---------------------------------------------------------------------------------------------------


def load_program(objects: ObjectStore, digest: str) -> dict[str, Any]:
    """What `record_programs` stored: function (pickled), source, code, metrics, data.

    Raises:
        StoreCorruptError: it is something else.
    """
    content = get_artifact(objects, digest)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise StoreCorruptError("this is no stored sweep", got=digest, expected=f"format {_FORMAT}")
    return content


def load_function(data: bytes) -> tuple[Any, list[str]]:
    """A stored function, and the names of the credentials that are missing in it."""
    filler = _Filler(data)
    return filler.load(), filler.missing
