"""Models as bytes: what comes back, and what is refused without trust."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.storage.registered import Scale
from umbel.scheduler.errors import StoreCorruptError, StoreError, UntrustedError
from umbel.storage.registry.model_formats import decode_model, encode_model, model_format
from umbel.storage.values.codecs import encode


def refuse(holds: str) -> None:
    raise UntrustedError("not trusted", got=holds)


def allow(holds: str) -> None:
    """Everything is trusted."""


def test_pickles_need_trust() -> None:
    encoded = encode_model(Scale(2.0))
    assert encoded.format == model_format(encoded.data) == "pickle"
    assert encoded == encode(Scale(2.0))
    with pytest.raises(UntrustedError, match="a pickle"):
        decode_model(encoded.data, refuse)
    assert decode_model(encoded.data, allow) == Scale(2.0)


def test_arrays_and_tables_need_none() -> None:
    array = encode_model(np.arange(6.0).reshape(2, 3))
    assert array.format == model_format(array.data) == "npy"
    assert np.array_equal(np.asarray(decode_model(array.data, refuse)), np.arange(6.0).reshape(2, 3))
    table = encode_model(pa.table({"x": [1, 2]}))
    assert table.format == model_format(table.data) == "parquet"
    assert decode_model(table.data, refuse) == pa.table({"x": [1, 2]})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        b"PK\x03\x04rest",
        b"PAR1xxxx",
        b"\x93NUMPY\x01",
        b"\x80\x05garbage",
        struct.pack("<Q", 3) + b"{x}",
    ],
)
def test_what_is_no_model(data: bytes) -> None:
    with pytest.raises(StoreCorruptError):
        decode_model(data, allow)


# ---- scikit-learn ----------------------------------------------------------------------------------------------


def pipeline() -> Any:
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    return make_pipeline(StandardScaler(), Ridge()).fit(rng.normal(size=(20, 3)), rng.normal(size=20))


def test_estimators_are_skops_files_and_need_no_trust() -> None:
    model = pipeline()
    encoded = encode_model(model)
    assert encoded.format == model_format(encoded.data) == "skops"
    back: Any = decode_model(encoded.data, refuse)
    x = np.ones((2, 3))
    assert back.predict(x).tolist() == model.predict(x).tolist()


def shifted(x: np.ndarray) -> np.ndarray:
    return x + 1


def test_types_that_skops_does_not_know_need_trust() -> None:
    from sklearn.preprocessing import FunctionTransformer

    encoded = encode_model(FunctionTransformer(shifted))
    assert encoded.format == "skops"
    with pytest.raises(UntrustedError, match=r"test_model_formats\.shifted"):
        decode_model(encoded.data, refuse)
    back: Any = decode_model(encoded.data, allow)
    assert back.transform(np.zeros(1)).tolist() == [1.0]


def test_what_skops_can_not_keep_is_pickled() -> None:
    from sklearn.preprocessing import FunctionTransformer

    encoded = encode_model(FunctionTransformer(lambda x: x + 1))
    assert encoded.format == "pickle"


def test_a_file_that_grows_when_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umbel.storage.registry.model_formats._UNPACKED_LIMIT_BYTES", 10_000)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", "0" * 1_000_000)
    with pytest.raises(StoreCorruptError, match="too large"):
        decode_model(sink.getvalue(), allow)


# ---- torch -----------------------------------------------------------------------------------------------------


def test_modules_of_marked_builders_need_no_trust() -> None:
    torch = pytest.importorskip("torch")
    from tests.storage import builders

    x = torch.ones(2, 3)
    for model in (builders.Net(3, depth=2), builders.Net(width=3), builders.tied(3)):
        encoded = encode_model(model)
        assert encoded.format == model_format(encoded.data) == "safetensors"
        assert encode_model(model).digest == encoded.digest
        back: Any = decode_model(encoded.data, refuse)
        assert type(back) is type(model)
        assert not back.training
        assert torch.equal(back(x), model(x))
        unpickled = pickle.loads(pickle.dumps(model))
        assert encode_model(unpickled).digest == encoded.digest
    assert back[0].weight is back[1].weight


def test_precision_stays() -> None:
    torch = pytest.importorskip("torch")
    from tests.storage import builders

    model = builders.Net(3).double()
    back: Any = decode_model(encode_model(model).data, refuse)
    x = torch.ones(1, 3, dtype=torch.float64)
    assert torch.equal(back(x), model(x))


def test_other_modules_are_pickled() -> None:
    torch = pytest.importorskip("torch")
    from tests.storage import builders
    from umbel.torch import builder

    @builder
    def inside(size: int) -> Any:
        return torch.nn.Linear(size, size)

    for model in (torch.nn.Linear(2, 2), builders.Deeper(3), builders.unmarked(2), inside(2)):
        assert encode_model(model).format == "pickle"


def forged(reference: str, config: str = "{}") -> bytes:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save

    return bytes(save({"x": torch.zeros(1)}, {"umbel": f'["{reference}", {config}]'}))


@pytest.mark.parametrize(
    "reference", ["tests.storage.builders:unmarked", "tests.storage.builders:Deeper", "os:system", "subprocess:run"]
)
def test_no_import_path_of_a_store_is_called(reference: str) -> None:
    with pytest.raises(UntrustedError, match=reference):
        decode_model(forged(reference, '{"size": 2}'), refuse)


@pytest.mark.parametrize(
    ("reference", "config", "error"),
    [
        ("tests.storage.no_such:Net", "{}", "missing here"),
        ("tests.storage.builders:no_such", "{}", "missing here"),
        ("tests.storage.builders:Net", '{"width": 3}', "can't be built"),
        ("tests.storage.builders:Net", '{"height": 3}', "can't be built"),
        ("tests.storage.builders:Net", "[]", "what builds"),
        ("tests.storage.builders:Net", "{", "what builds"),
    ],
)
def test_a_builder_that_does_not_build_it(reference: str, config: str, error: str) -> None:
    with pytest.raises(StoreError, match=error):
        decode_model(forged(reference, config), refuse)


def test_headers_that_are_wrong() -> None:
    pytest.importorskip("torch")
    for header in (
        b"{}x",
        json.dumps({"__metadata__": {"a": 1}}).encode(),
        b'{"__metadata__": 3}',
        b'{"x": {"dtype": 1}}',
    ):
        with pytest.raises(StoreCorruptError):
            decode_model(struct.pack("<Q", len(header)) + header, allow)
