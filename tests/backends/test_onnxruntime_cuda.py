"""ONNX Runtime's and PyTorch's GPU parts, as far as a machine without a GPU can tell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ort = pytest.importorskip("onnxruntime", reason="needs the cpu extra")

from tiny_network import Tiny, batch, write_onnx  # noqa: E402

from evalkit.backends.base import SessionOptions  # noqa: E402
from evalkit.backends.onnxruntime.backend import OnnxRuntimeBackend  # noqa: E402
from evalkit.backends.onnxruntime.cuda import BoundSession, check_fell_back, providers  # noqa: E402
from evalkit.core.errors import UnavailableError  # noqa: E402
from evalkit.testing import BackendContract  # noqa: E402

TENSORRT = SessionOptions("fp16", device="cuda:1", provider="tensorrt")
CUDA = SessionOptions(device="cuda:1")


def test_settings_of_the_providers() -> None:
    assert providers(SessionOptions()) == ["CPUExecutionProvider"]
    assert providers(CUDA) == [("CUDAExecutionProvider", {"device_id": "1", "use_tf32": "0"})]
    (first, settings), second = providers(TENSORRT)
    assert (first, second[0]) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert settings["device_id"] == settings["trt_fp16_enable"] == "1"
    assert settings["trt_int8_enable"] == "0"


def test_names_of_the_settings_are_in_the_gpu_package() -> None:
    """They are compiled into the providers' libraries as strings, each ended by a zero.

    EVALKIT_ONNXRUNTIME_GPU names the folder ``onnxruntime/capi`` of an unpacked wheel.
    """
    named = os.environ.get("EVALKIT_ONNXRUNTIME_GPU")
    folder = Path(named) if named else Path(ort.__file__).parent / "capi"
    libraries = [folder / f"libonnxruntime_providers_{name}.so" for name in ("tensorrt", "cuda")]
    if not all(library.is_file() for library in libraries):
        pytest.skip("no GPU package: pip download --no-deps onnxruntime-gpu, and unpack it")
    for library, (provider, settings) in zip(libraries, providers(TENSORRT), strict=True):
        content = library.read_bytes()
        assert b"\0trt_no_such_setting\0" not in content, "the check would find anything"
        for name in (provider, *settings):
            assert name.encode() + b"\0" in content, f"{library.name} has no {name}"


@pytest.mark.parametrize("size", ["n", 4])
def test_bound_runs_equal_plain_ones(tiny: Tiny, tmp_path: Path, size: Any) -> None:
    """On the CPU's own memory: the same calls, the same figures, and arrays of the caller's own."""
    file = write_onnx(tiny, tmp_path / "m.onnx", size=size)
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    bound = BoundSession(session, "cpu", 0)
    images, held = batch(), None
    for count in (4, 4, 4) if size == 4 else (4, 4, 2, 1, 4):
        given = np.ascontiguousarray(images[:count] * count)
        (ours,) = bound.run("image", given)
        assert np.array_equal(ours, session.run(None, {"image": given})[0])
        if held is not None:
            assert np.array_equal(*held)
        held = (ours, ours.copy())


def test_provider_needs_a_gpu(tiny: Tiny, tmp_path: Path) -> None:
    file = write_onnx(tiny, tmp_path / "m.onnx")
    with pytest.raises(UnavailableError, match="'tensorrt' runs on a GPU, and the device is cpu"):
        OnnxRuntimeBackend.open(file, SessionOptions(provider="tensorrt"))


def test_provider_that_is_not_built_in(
    monkeypatch: pytest.MonkeyPatch, tiny: Tiny, tmp_path: Path
) -> None:
    file = write_onnx(tiny, tmp_path / "m.onnx")
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr("evalkit.backends.onnxruntime.backend.cuda_device_count", lambda: 2)
    with pytest.raises(UnavailableError, match=r"built without Tensorrt.*-e '.\[gpu\]"):
        OnnxRuntimeBackend.open(file, SessionOptions(device="cuda:1", provider="tensorrt"))


@pytest.mark.parametrize(
    ("options", "held", "fell"),
    [
        (SessionOptions(), ["CPUExecutionProvider"], False),
        (CUDA, ["CUDAExecutionProvider", "CPUExecutionProvider"], False),
        (CUDA, ["CPUExecutionProvider"], True),
        (TENSORRT, ["CUDAExecutionProvider", "CPUExecutionProvider"], True),
        (TENSORRT, ["TensorrtExecutionProvider", "CUDAExecutionProvider"], False),
    ],
)
def test_falling_back_is_refused(options: SessionOptions, held: list[str], fell: bool) -> None:
    if not fell:
        check_fell_back(options, held)
        return
    with pytest.raises(UnavailableError, match="fell back"):
        check_fell_back(options, held)


def test_names_of_pytorchs_cuda_exist() -> None:
    torch = pytest.importorskip("torch", reason="needs the torch extra")
    for name in ("Stream", "stream", "empty_cache", "is_available", "device_count"):
        assert callable(getattr(torch.cuda, name))
    assert callable(torch.cuda.Stream.synchronize)
    assert torch.zeros(2).to("cpu", non_blocking=True).shape == (2,)
    with pytest.raises(TypeError):
        torch.empty(2, pinned_memory=True)
    torch.empty((2,), dtype=torch.float32, pin_memory=False)
    torch.empty_like(torch.zeros(2), pin_memory=False)


def on_gpu() -> bool:
    return any(device != "cpu" for device in OnnxRuntimeBackend.probe().devices)


@pytest.mark.skipif(not on_gpu(), reason="needs a GPU and the gpu extra")
class TestCuda(BackendContract):
    backend = OnnxRuntimeBackend
    options = SessionOptions(device="cuda:0", threads=1)

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path) -> None:
        cls.model = write_onnx(tiny, models / "cuda.onnx")
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


@pytest.mark.skipif(not on_gpu(), reason="needs a GPU, the gpu extra and TensorRT")
class TestTensorrtProvider(TestCuda):
    options = SessionOptions(device="cuda:0", threads=1, provider="tensorrt")
