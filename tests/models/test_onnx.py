import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autocrossdim.models import onnx
from autocrossdim.models.model_file import ModelFile
from autocrossdim.models.pack import pack
from autocrossdim.system.errors import UserError

needs_packages = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in onnx.PACKAGES),
    reason="onnx, onnxscript or onnxruntime is not installed",
)


@pytest.fixture(scope="module", params=[2, 3])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path]
) -> ModelFile:
    folder = tmp_path_factory.mktemp("onnx")
    dims = request.param
    model = write_model(
        folder / "model",
        dims=dims,
        patch_size=(16,) * dims,
        strides=((2,) * dims,) * 3,
        image_statistics=0.2 if dims == 2 else 0,
    )
    return pack(model, folder / "model.acd")


@pytest.mark.slow
@needs_packages
def test_onnx_computes_what_pytorch_does_for_any_batch(exported: ModelFile, tmp_path: Path) -> None:
    import onnxruntime
    import torch

    from autocrossdim.inference.predictor import Predictor

    (written,) = onnx.write_networks(exported, tmp_path)
    (model,) = Predictor.load(exported.path, device="cpu").models
    assert written.path == tmp_path / f"{model.configuration.name}_fold_0.onnx"
    assert [path.name for path in tmp_path.iterdir()] == [written.path.name]  # weights are inside, nothing beside it
    assert written.difference < 1e-4 < written.largest
    session = onnxruntime.InferenceSession(str(written.path), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        patches = np.random.default_rng(batch).normal(size=(batch, 1, *model.configuration.patch_size))
        (logits,) = session.run(["logits"], {"image": patches.astype(np.float32)})
        with torch.inference_mode():
            expected = model.networks[0](torch.from_numpy(patches.astype(np.float32)))
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)


@needs_packages
def test_a_network_that_computes_something_else_is_not_kept(
    exported: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_nothing(network: Any, patches: Any, path: Path) -> None:
        path.write_bytes(b"a network")

    monkeypatch.setattr(onnx, "_export", write_nothing)
    monkeypatch.setattr(onnx, "_compare", lambda *args: (0.1, 2.0))
    with pytest.raises(UserError, match=r"fold_0\.onnx: not written, because it differs from PyTorch by 0\.1"):
        list(onnx.write_networks(exported, tmp_path))
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named_with_what_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "PACKAGES", ("json", "a_package_that_is_not_there"))
    with pytest.raises(UserError, match=r"needs a_package_that_is_not_there.*'autocrossdim\[onnx\]'"):
        onnx.require_packages()
