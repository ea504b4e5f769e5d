"""Which bytes stand for a registered model, and what does it take to make a model of them?

Torch modules that a marked builder made (`umbel.torch.builder`) become safetensors with a reference to the builder;
scikit-learn estimators become skops files; arrays and tables npy and Parquet; all else is pickled. The first bytes say
which. Where a format does not do, or its package is missing, the model is pickled.

Of these only pickles, skops files with types that skops does not know, and references to what is not marked carry code
of their writer; they are loaded only if the caller trusts the store. It must not know where bytes lie.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from umbel.scheduler.errors import StoreCorruptError, StoreError
from umbel.storage.values.codecs import Encoded, decode, digest_of, encode

__all__ = ["BUILDER", "BUILT_BY", "decode_model", "encode_model", "model_format"]

#: The attribute that marks a function or class as a builder.
BUILDER = "__umbel_builder__"
#: The attribute of a module that says what built it: the builder's reference, and its arguments.
BUILT_BY = "__umbel_built_by__"
#: What a skops file may hold unpacked, and a safetensors header.
_UNPACKED_LIMIT_BYTES = 2 * 2**30
_HEADER_LIMIT_BYTES = 100 * 2**20
_METADATA = "__metadata__"
#: The entry of a safetensors file that says what builds the module: JSON, [reference, arguments].
_BUILT = "umbel"

#: Asked before code of the writer is run, with a description of it; raises to refuse.
CheckTrust = Callable[[str], None]


def encode_model(model: object) -> Encoded:
    """Turn a model into self-describing bytes.

    Raises:
        CodeError: it can't be pickled, and no other format does.
    """
    data = _encode_torch(model)
    if data is not None:
        return Encoded("safetensors", data, digest_of(data))
    data = _encode_sklearn(model)
    if data is not None:
        return Encoded("skops", data, digest_of(data))
    return encode(model)


def model_format(data: bytes) -> str:
    """ "safetensors", "skops", "npy", "parquet" or "pickle".

    Raises:
        StoreCorruptError: it is none of them.
    """
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8:
        return "safetensors"
    for magic, name in ((b"PK\x03\x04", "skops"), (b"\x93NUMPY", "npy"), (b"PAR1", "parquet"), (b"\x80", "pickle")):
        if data.startswith(magic):
            return name
    raise StoreCorruptError(
        "a stored model has no known format",
        got=repr(data[:8]),
        expected="safetensors, skops, npy, Parquet or a pickle",
    )


def decode_model(data: bytes, check_trust: CheckTrust) -> object:
    """The model that some bytes from `encode_model`, or from `umbel.storage.values.codecs.encode`, stand for.

    Args:
        data: the bytes, checked against their digest.
        check_trust: raises if code of their writer may not be run.

    Raises:
        StoreCorruptError: the bytes are not what these make.
        StoreError: a package, class or builder that the model needs is missing here.
    """
    name = model_format(data)
    if name == "safetensors":
        return _decode_torch(data, check_trust)
    if name == "skops":
        return _decode_skops(data, check_trust)
    if name == "pickle":
        check_trust("a pickle")
    return decode(data)


# ---- torch -----------------------------------------------------------------------------------------------------


def _encode_torch(model: object) -> bytes | None:
    torch = sys.modules.get("torch")  # a module of torch's is there only if torch is
    if torch is None or not isinstance(model, torch.nn.Module):
        return None
    built_by = getattr(model, BUILT_BY, None)
    if built_by is None or _marked(built_by[0]) is None:
        return None
    try:
        from safetensors.torch import save

        if json.loads(json.dumps(built_by[1], allow_nan=False)) != built_by[1]:
            return None
        state = model.state_dict()
        if not all(isinstance(value, torch.Tensor) for value in state.values()):
            return None
        # copies, for tensors that share memory are refused; those of one name each get their values back
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
        # one entry: the order of several would differ from time to time, and with it the digest
        data: bytes = save(tensors, {_BUILT: json.dumps([built_by[0], built_by[1]])})
    except (ImportError, TypeError, ValueError, RuntimeError, KeyError):
        return None
    return data


def _decode_torch(data: bytes, check_trust: CheckTrust) -> object:
    metadata = _metadata(data)
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError as error:
        raise _missing("safetensors and torch", error, "models") from error
    try:
        state = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise StoreCorruptError("a stored model can't be decoded", got=f"{type(error).__name__}: {error}") from error
    if _BUILT not in metadata:
        return state
    try:
        reference, config = json.loads(metadata[_BUILT])
        if not isinstance(reference, str) or not isinstance(config, dict):
            raise ValueError("no builder and its arguments")
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreCorruptError("what builds a stored model can't be read", got=str(error)) from error
    builder = _builder(reference, check_trust)
    try:
        module: Any = builder(**config)
        precisions = {value.dtype for value in state.values() if value.is_floating_point()}
        if len(precisions) == 1:
            module.to(precisions.pop())  # trained in float64, say: loading would round its weights
        module.load_state_dict(state)
    except Exception as error:
        raise StoreError(
            "a stored model can't be built here",
            got=f"{reference}({', '.join(config)}): {type(error).__name__}: {error}"[:1000],
            expected="the code that it was trained with",
            hint="install the version of the project that made it, or register the model again",
        ) from error
    return module.eval()


def _metadata(data: bytes) -> Mapping[str, str]:
    """What a safetensors file says of itself."""
    length = int.from_bytes(data[:8], "little")
    try:
        if length > _HEADER_LIMIT_BYTES:
            raise ValueError(f"a header of {length} bytes")
        found = json.loads(data[8 : 8 + length]).get(_METADATA) or {}
        if not all(isinstance(each, str) for each in found.values()):
            raise ValueError("metadata that are no texts")
    except (ValueError, AttributeError, RecursionError) as error:
        raise StoreCorruptError("a stored model can't be decoded", got=f"{type(error).__name__}: {error}") from error
    return dict(found)


def _builder(reference: str, check_trust: CheckTrust) -> Callable[..., object]:
    """The function or class that a model names. Only what is marked as a builder is called without trust."""
    module_name, _, name = reference.partition(":")
    if module_name.partition(".")[0] in sys.stdlib_module_names or not module_name:
        check_trust(f"a call of {reference}, which is no builder of models")
    try:
        found: Any = import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise StoreError(
            "a stored model needs code that is missing here",
            got=f"{reference}: {error}",
            expected="the function or class that builds it",
            hint="install the project, or put its folder on PYTHONPATH",
        ) from error
    if not _is_marked(found, reference):
        check_trust(f"a call of {reference}, which is not marked by @umbel.torch.builder")
    builder: Callable[..., object] = found
    return builder


def _marked(reference: str) -> object | None:
    """What a reference names in this process, if it is marked and other processes can import it; else None."""
    module_name, _, name = reference.partition(":")
    if module_name == "__main__":
        return None
    try:
        found: Any = import_module(module_name)
    except Exception:  # a script's, say, that can't be imported elsewhere either
        return None
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if _is_marked(found, reference) else None


def _is_marked(found: object, reference: str) -> bool:
    """Whether it is a builder itself: a subclass of one is not."""
    return found is not None and getattr(found, BUILDER, None) == reference


# ---- scikit-learn ----------------------------------------------------------------------------------------------


def _encode_sklearn(model: object) -> bytes | None:
    base = sys.modules.get("sklearn.base")  # an estimator is there only if scikit-learn is
    if base is None or not isinstance(model, base.BaseEstimator):
        return None
    try:
        from skops import io as skops_io

        data: bytes = skops_io.dumps(model)
        skops_io.loads(data, trusted=skops_io.get_untrusted_types(data=data))
    except Exception:  # what skops can't keep is pickled
        return None
    return data


def _decode_skops(data: bytes, check_trust: CheckTrust) -> object:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked_bytes = sum(entry.file_size for entry in archive.infolist())
            if unpacked_bytes > _UNPACKED_LIMIT_BYTES:
                raise StoreCorruptError(
                    "a stored model is too large when unpacked",
                    got=f"{unpacked_bytes / 2**30:.1f} GiB",
                    expected=f"at most {_UNPACKED_LIMIT_BYTES / 2**30:g} GiB",
                )
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise StoreCorruptError("a stored model can't be decoded", got=f"{type(error).__name__}: {error}") from error
    try:
        from skops import io as skops_io
    except ImportError as error:
        raise _missing("skops", error, "models") from error
    try:
        unknown = skops_io.get_untrusted_types(data=data)
    except Exception as error:  # skops reads what the file says as it comes
        raise StoreCorruptError("a stored model can't be decoded", got=f"{type(error).__name__}: {error}") from error
    if unknown:
        check_trust("types that skops does not know: " + ", ".join(unknown[:10]))
    try:
        return skops_io.loads(data, trusted=unknown)
    except (ImportError, AttributeError) as error:
        raise StoreError(
            "a stored model needs code that is missing here",
            got=f"{type(error).__name__}: {error}",
            hint="install the package, or import the module, that defines it",
        ) from error
    except (pickle.UnpicklingError, KeyError, ValueError, TypeError, OSError, EOFError, RecursionError) as error:
        raise StoreCorruptError("a stored model can't be decoded", got=f"{type(error).__name__}: {error}") from error


def _missing(what: str, error: ImportError, extra: str) -> StoreError:
    return StoreError(
        f"a stored model needs {what}", got=str(error), hint=f"pip install 'umbel[{extra}]', and what the model uses"
    )
