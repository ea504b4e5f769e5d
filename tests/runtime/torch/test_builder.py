"""Torch modules from trial to registry: what is marked needs no pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import umbel

torch = pytest.importorskip("torch")

from tests.storage import builders  # noqa: E402 - it needs torch
from umbel.storage.registry.model_formats import BUILT_BY, decode_model, encode_model  # noqa: E402


def trial(config: dict[str, Any]) -> umbel.Result:
    torch.manual_seed(config["width"])
    return umbel.Result({"loss": 1 / config["width"]}, model=builders.Net(config["width"]))


def test_a_marked_module_is_registered_without_a_pickle(tmp_path: Path) -> None:
    sweep = umbel.sweep(trial, space={"width": [2, 3]}, search="grid", over={"country": ["AUT", "BRA"]}, metric="loss")
    run = umbel.run(sweep, store=str(tmp_path), name="nets", executor="inline", progress="quiet")
    version = umbel.open_store(str(tmp_path)).registry.register(run, model="nets", inputs=[[1.0, 2.0, 3.0]])
    assert set(version.table()["model_format"].to_pylist()) == {"safetensors"}
    assert version.schema is not None
    assert version.schema["outputs"]["items"]["minItems"] == 3
    loaded: Any = version.load("AUT")  # nobody has said that the store is trusted
    own: Any = run.load_model(run.best()["model"][0].as_py())
    x = torch.ones(1, 3)
    assert torch.equal(loaded(x), own(x))
    assert version.predict("AUT", [[1.0, 1.0, 1.0]]).tolist() == own(x).tolist()  # type: ignore[attr-defined]
    model = umbel.open_store(str(tmp_path)).registry.model("nets")
    assert model.promote(1).gates == ("smoke test",)


def test_what_a_module_notes_of_its_making() -> None:
    assert getattr(builders.Net(3, depth=2), BUILT_BY) == ("tests.storage.builders:Net", {"width": 3, "depth": 2})
    assert getattr(builders.tied(3), BUILT_BY) == ("tests.storage.builders:tied", {"size": 3})
    assert not hasattr(builders.Deeper(3), BUILT_BY)
    sizes = [1]

    @umbel.torch.builder
    def net(sizes: list[int], /) -> Any:
        return torch.nn.Linear(*sizes, 1)

    assert not hasattr(net(sizes), BUILT_BY)  # its arguments have no names
    with pytest.raises(TypeError, match="sizes"):
        net()  # type: ignore[call-arg]
    with pytest.raises(umbel.UsageError, match="function or a class"):
        umbel.torch.builder(3)  # type: ignore[type-var]


def test_modules_that_were_trained_as_one() -> None:
    x = torch.arange(6.0).reshape(3, 2)
    configs = [{"size": 2, "lr": 0.1}, {"size": 2, "lr": 0.01}]
    fitted = umbel.torch.fit_many(builders.of_config, (x, x.sum(1, keepdim=True)), configs, "mse", steps=3)
    module = fitted.module(1)
    encoded = encode_model(module)
    assert encoded.format == "safetensors"
    back: Any = decode_model(encoded.data, pytest.fail)
    assert torch.equal(back(x), module(x))
