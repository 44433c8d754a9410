"""The steps that the TensorRT session and builder take, with stand-ins for TensorRT and pycuda.

They show that our own code hangs together: shapes, buffers, contexts, closing, messages, caching.
Nothing here ran on TensorRT.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the test extra")

import tensorrt_stand_in as stand_in
from tiny_network import Tiny, batch, write_onnx

from evalkit.backends.base import SessionOptions
from evalkit.backends.tensorrt.backend import TensorRtBackend
from evalkit.core.errors import InputError
from evalkit.testing import BackendContract

CUDA = SessionOptions(device="cuda")


@pytest.fixture(autouse=True, scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    package = ModuleType("pycuda")
    package.driver = stand_in.pycuda_driver()  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorrt", stand_in.tensorrt())
        patch.setitem(sys.modules, "pycuda", package)
        patch.setitem(sys.modules, "pycuda.driver", package.driver)
        patch.setattr("evalkit.backends.tensorrt.backend.cuda_device_count", lambda: 2)
        patch.setenv("EVALKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    file = tmp_path / "m.engine"
    file.write_bytes(stand_in.PLAN)
    return file


class TestSteps(BackendContract):
    backend = TensorRtBackend
    options = CUDA

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, models: Path) -> None:
        cls.model = models / "steps.engine"
        cls.model.write_bytes(stand_in.PLAN)
        cls.batch = batch()
        cls.reference = {"embedding": 2 * cls.batch.mean((2, 3)) + 1}

    def test_precision_is_never_pretended(self) -> None:
        for precision in ("fp16", "bf16", "int8"):
            with pytest.raises(InputError, match=precision):
                self.open(precision=precision)


def test_memory_and_contexts_are_given_back(engine: Path) -> None:
    with TensorRtBackend.open(engine, CUDA) as session:
        for size in (1, 8, 3, 8):
            images = batch(size)
            given = session.run(images)["embedding"]
            np.testing.assert_allclose(given, 2 * images.mean((2, 3)) + 1, rtol=1e-6)
        assert len(stand_in.memory) == 2
        assert not stand_in.contexts
        with pytest.raises(InputError, match="--batch-size"):
            session.run(batch(9))
    assert not stand_in.memory
    assert not stand_in.contexts


def test_a_refused_engine_leaves_nothing_behind(engine: Path) -> None:
    engine.write_bytes(b"of another version")
    with pytest.raises(InputError, match=r"no engine for TensorRT 11.*stand-in-gpu-sm90: Magic"):
        TensorRtBackend.open(engine, CUDA)
    assert not stand_in.memory
    assert not stand_in.contexts


def test_native_code_of_an_engine_needs_trust(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    plain = stand_in.Runtime.deserialize_cuda_engine

    def noted(self: stand_in.Runtime, plan: bytes) -> stand_in.Engine | None:
        seen.append(bool(self.engine_host_code_allowed))
        return plain(self, plan)

    monkeypatch.setattr(stand_in.Runtime, "deserialize_cuda_engine", noted)
    TensorRtBackend.open(engine, CUDA).close()
    monkeypatch.setenv("EVALKIT_TRUST_ENGINES", "1")
    TensorRtBackend.open(engine, CUDA).close()
    assert seen == [False, True]


def test_an_engine_that_tells_names_alone_runs_as_unknown(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_in.Runtime, "layers", ["conv1", "fc"])
    with TensorRtBackend.open(engine, SessionOptions("int8", device="cuda")) as session:
        assert session.ran.precision_ran == "unknown"
        assert "verbosity" in session.ran.notes[0]


def test_models_are_built_once_with_the_timing_cache(tiny: Tiny, tmp_path: Path) -> None:
    stand_in.Builder.built.clear()
    file = write_onnx(tiny, tmp_path / "m.onnx")
    for _ in range(2):
        with TensorRtBackend.open(file, CUDA) as session:
            assert session.ran.details["form"] == "onnx"
    (config,) = stand_in.Builder.built
    assert config.profiling_verbosity == "detailed"
    assert config.seen["cleared"] == "tf32"
    assert config.seen["profile"]["image"][0] == (1, 3, 16, 16)
    assert config.seen["timing"] == b""
    other = write_onnx(tiny, tmp_path / "other.onnx", size=4)
    TensorRtBackend.open(other, CUDA).close()
    assert stand_in.Builder.built[1].seen["timing"] == b"t"


def test_an_operator_that_is_not_known_is_told(tiny: Tiny, tmp_path: Path) -> None:
    file = write_onnx(tiny, tmp_path / "unknown.onnx")
    with pytest.raises(InputError, match=r"unknown\.onnx.*Frobnicate\. Export"):
        TensorRtBackend.open(file, CUDA)
    assert not stand_in.contexts


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_converting_writes_an_engine(tiny: Tiny, tmp_path: Path, precision: str) -> None:
    pytest.importorskip("onnxruntime.quantization", reason="needs the cpu extra")
    pytest.importorskip("onnxconverter_common", reason="needs the convert extra")
    from evalkit.convert.base import ConvertSettings
    from evalkit.convert.tensorrt import TensorRtConverter

    source, out = write_onnx(tiny, tmp_path / "m.onnx"), tmp_path / "m.engine"
    settings = ConvertSettings(precision=precision, shape=(1, 3, 16, 16))  # type: ignore[arg-type]
    built = TensorRtConverter.build(source, out, settings, [batch(4), batch(4)])
    assert out.read_bytes() == stand_in.PLAN
    assert built.details["gpu"] == "stand-in-gpu-sm90"
    assert built.versions["tensorrt"] == "11.4.0.106"
    assert (built.details["biases_in_fp32"] > 0) == (precision == "int8")
    assert "fc" in TensorRtConverter.layers(source, settings)
    if precision == "int8":
        settings = ConvertSettings(precision="int8", symmetric=False, shape=(1, 3, 16, 16))
        with pytest.raises(InputError, match="--no-symmetric"):
            TensorRtConverter.build(source, out, settings, [batch(4)])
