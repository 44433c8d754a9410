"""ONNX Runtime: the contract, and that the precision reported is the one that ran."""

from __future__ import annotations

import importlib.metadata
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

ort = pytest.importorskip("onnxruntime", reason="needs the cpu or gpu extra")
onnx = pytest.importorskip("onnx", reason="needs the test extra")

from tiny_network import Tiny, batch, write_int8, write_onnx  # noqa: E402

from evalkit.backends.base import SessionOptions  # noqa: E402
from evalkit.backends.onnxruntime.backend import OnnxRuntimeBackend  # noqa: E402
from evalkit.core.errors import InputError, UnavailableError  # noqa: E402
from evalkit.testing import BackendContract  # noqa: E402

ONE = SessionOptions(threads=1)


class TestDynamicBatch(BackendContract):
    backend = OnnxRuntimeBackend

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path) -> None:
        cls.model = write_onnx(tiny, models / "dynamic.onnx")
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


class TestFixedBatch(TestDynamicBatch):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path) -> None:
        cls.model = write_onnx(tiny, models / "fixed.onnx", size=4)
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


class TestHalf(TestDynamicBatch):
    """The yardstick is that of ten bits of mantissa."""

    options = SessionOptions("fp16", threads=1)
    rtol = 1e-2

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path) -> None:
        cls.model = write_onnx(tiny, models / "half.onnx", weights=np.float16, inputs=np.float16)
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


def test_fp32_graph_runs_in_fp32(tiny: Tiny, tmp_path: Path) -> None:
    with OnnxRuntimeBackend.open(write_onnx(tiny, tmp_path / "m.onnx"), ONE) as session:
        ran = session.ran
    assert ran.precision_ran == "fp32"
    assert ran.notes == ()
    assert ran.details["heavy_kernels_by_precision"] == {"fp32": 2}
    assert ran.details["providers"] == ["CPUExecutionProvider"]


@pytest.mark.parametrize("inputs", [np.float16, np.float32])
def test_fp16_graph_on_a_cpu_is_reported_as_fp32(
    tiny: Tiny, tmp_path: Path, inputs: type[np.generic]
) -> None:
    file = write_onnx(tiny, tmp_path / "m.onnx", weights=np.float16, inputs=inputs)
    with OnnxRuntimeBackend.open(file, SessionOptions("fp16", threads=1)) as session:
        assert session.ran.precision_ran == "fp32 (fp16 weights)"
        assert "rounding" in session.ran.notes[0]
        assert session.inputs[0].dtype == np.dtype(inputs).name


def test_int8_graph_runs_in_int8(tiny: Tiny, models: Path) -> None:
    with OnnxRuntimeBackend.open(write_int8(tiny, models), SessionOptions("int8", threads=1)) as s:
        out = s.run(batch())["output0"]
        assert s.ran.precision_ran.startswith("int8")
        assert s.ran.details["heavy_kernels_by_precision"]["int8"] >= 1
    wanted = tiny(batch())
    cosine = (out * wanted).sum(1) / np.linalg.norm(out, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosine.min() > 0.99
    assert not np.allclose(out, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("label", ["fp16", "int8"])
def test_label_that_the_graph_does_not_bear_is_refused(
    tiny: Tiny, tmp_path: Path, label: str
) -> None:
    file = write_onnx(tiny, tmp_path / "m.onnx")
    with pytest.raises(InputError, match=f"built in fp32, but {label}"):
        OnnxRuntimeBackend.open(file, SessionOptions(label, threads=1))  # type: ignore[arg-type]


def test_fp32_label_on_a_lower_graph_is_refused(tiny: Tiny, models: Path) -> None:
    with pytest.raises(InputError, match="built in int8, but fp32"):
        OnnxRuntimeBackend.open(write_int8(tiny, models), ONE)


def test_model_of_bytes_takes_pixels_and_refuses_fractions(tiny: Tiny, tmp_path: Path) -> None:
    file = write_onnx(tiny, tmp_path / "m.onnx", inputs=np.uint8)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), np.uint8)
    with OnnxRuntimeBackend.open(file, ONE) as session:
        given = session.run(pixels)["output0"]
        with pytest.raises(InputError, match="fractions"):
            session.run(batch(2))
    np.testing.assert_allclose(given, tiny(pixels), rtol=1e-3, atol=1e-3)


def test_two_installed_packages_are_refused(
    monkeypatch: pytest.MonkeyPatch, tiny: Tiny, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.31.1")
    probe = OnnxRuntimeBackend.probe()
    assert not probe.available
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in probe.remedy
    with pytest.raises(UnavailableError, match="both installed"):
        OnnxRuntimeBackend.open(write_onnx(tiny, tmp_path / "m.onnx"), ONE)


def test_incomplete_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(ort, "InferenceSession")
    probe = OnnxRuntimeBackend.probe()
    assert not probe.available
    assert "--force-reinstall" in probe.remedy


def test_cuda_that_falls_back_to_the_cpu_is_refused(
    monkeypatch: pytest.MonkeyPatch, tiny: Tiny, tmp_path: Path
) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this package can really run CUDA")
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr("evalkit.backends.onnxruntime.backend.cuda_device_count", lambda: 1)
    file = write_onnx(tiny, tmp_path / "m.onnx")
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(UnavailableError, match="fell back"),
    ):
        OnnxRuntimeBackend.open(file, SessionOptions(device="cuda"))


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in "abc"]
    node = helper.make_node("Add", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "add", infos[:2], infos[2:])
    file = tmp_path / "two.onnx"
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), file)
    with pytest.raises(InputError, match="has 2 inputs"):
        OnnxRuntimeBackend.open(file, ONE)


def test_unknown_operator_is_the_models_fault(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in "ab"]
    node = helper.make_node("Frobnicate", ["a"], ["b"], domain="nowhere")
    graph = helper.make_graph([node], "odd", infos[:1], infos[1:])
    file = tmp_path / "odd.onnx"
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("nowhere", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), file)
    with pytest.raises(InputError, match=r"odd\.onnx.*Frobnicate"):
        OnnxRuntimeBackend.open(file, ONE)


def test_newer_versions_and_foreign_operators_are_told_without_source_lines(
    tiny: Tiny, tmp_path: Path
) -> None:
    held = onnx.load(write_onnx(tiny, tmp_path / "m.onnx"))
    file = tmp_path / "newer.onnx"
    held.ir_version = 99
    file.write_bytes(held.SerializeToString())
    told = r"cannot load it: it is of IR version 99, and this version knows IR versions up to \d+"
    with pytest.raises(InputError, match=rf"{told}\. Export it .* or install a newer one\.$"):
        OnnxRuntimeBackend.open(file, ONE)
    held.ir_version = 8
    held.opset_import.append(onnx.helper.make_opsetid("com.acme", 1))
    held.graph.node[0].domain = "com.acme"
    file.write_bytes(held.SerializeToString())
    told = r"cannot load it: com\.acme:Cast\(-1\) is not a registered function/op"
    with pytest.raises(InputError, match=rf"{told}\. Export it .* or install a newer one\.$"):
        OnnxRuntimeBackend.open(file, ONE)


def test_external_data_outside_the_folder_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    file = write_onnx(tiny, inside / "m.onnx")
    model = onnx.load(file)
    tensor = next(t for t in model.graph.initializer if t.name == "fc.weight")
    (tmp_path / "secret.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret.bin"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"m\.onnx"):
        OnnxRuntimeBackend.open(file, ONE)


FIRST_SESSION = """
import sys, threading
from pathlib import Path
import numpy as np
from evalkit.backends.base import SessionOptions
from evalkit.backends.onnxruntime.backend import OnnxRuntimeBackend

def kept(after):
    if np.float64(5e-324) * 1.0 == 0 or np.float32(1e-45) * np.float32(1) == 0:
        sys.exit(f"subnormals are zero after {after}")

kept("the imports")
session = OnnxRuntimeBackend.open(Path(sys.argv[1]), SessionOptions(threads=int(sys.argv[2])))
kept("opening")
assert session.ran.details["denormals_as_zero"] is False
session.run(np.ones((4, 3, 16, 16), np.float32))
kept("running")
later = threading.Thread(target=kept, args=["starting a thread"])
later.start()
later.join()
session.close()
kept("closing")
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_first_session_leaves_subnormals_alone(
    tiny: Tiny, tmp_path: Path, threads: str
) -> None:
    file = write_onnx(tiny, tmp_path / "m.onnx")
    command = [sys.executable, "-c", FIRST_SESSION, str(file), threads]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_full_temporary_folder_is_told(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_onnx(tiny, tmp_path / "m.onnx")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # writes fail as on a full disk
    try:
        with pytest.raises(InputError) as told:
            OnnxRuntimeBackend.open(file, ONE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(tmp_path) in str(told.value)
    assert "TMPDIR" in str(told.value)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_a_missing_temporary_folder_is_told(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"nowhere.*TMPDIR"):
        OnnxRuntimeBackend.open(write_onnx(tiny, tmp_path / "m.onnx"), ONE)


@pytest.mark.parametrize("name", ["mobilefacenet", "y1"])
def test_real_models_open_and_run(shared_data: Path, name: str) -> None:
    faces = np.random.default_rng(1).normal(0, 1, (3, 3, 112, 112)).astype(np.float32)
    with OnnxRuntimeBackend.open(shared_data / "models" / f"{name}.onnx", ONE) as session:
        (out,) = session.run(faces).values()
        assert session.ran.precision_ran == "fp32"
    assert out.shape == (3, 128)
    assert np.isfinite(out).all()
