"""TVM: the contract, and that the precision reported is the one that ran."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

tvm = pytest.importorskip("tvm", reason="needs the tvm extra")
onnx = pytest.importorskip("onnx", reason="needs the test extra")

from tiny_network import Tiny, batch, write_onnx  # noqa: E402

from evalkit.backends.base import SessionOptions  # noqa: E402
from evalkit.backends.tvm import build as tvm_build  # noqa: E402
from evalkit.backends.tvm.backend import TvmBackend  # noqa: E402
from evalkit.backends.tvm.onnx import load_onnx  # noqa: E402
from evalkit.core.errors import InputError, UnavailableError  # noqa: E402
from evalkit.testing import BackendContract  # noqa: E402

ONE = SessionOptions(threads=1)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of this module's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVALKIT_CACHE", str(folder))
        yield folder


class TestDynamicBatch(BackendContract):
    backend = TvmBackend

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path, cache: Path) -> None:
        cls.model = write_onnx(tiny, models / "tvm_dynamic.onnx")
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


class TestFixedBatch(TestDynamicBatch):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path, cache: Path) -> None:
        cls.model = write_onnx(tiny, models / "tvm_fixed.onnx", size=4)
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


class TestHalf(TestDynamicBatch):
    """The yardstick is that of ten bits of mantissa."""

    options = SessionOptions("fp16", threads=1)
    rtol = 1e-2


class TestLibrary(TestDynamicBatch):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path, cache: Path) -> None:
        cls.model = library(write_onnx(tiny, models / "to_compile.onnx"), models / "tiny.so")
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


def library(source: Path, out: Path) -> Path:
    made = tvm_build.compile_graph(load_onnx(source), (None, 3, 16, 16), "fp32", source)
    tvm_build.write_library(*made, out)
    return out


def cosine(given: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(given, axis=1) * np.linalg.norm(wanted, axis=1)
    return (given * wanted).sum(1) / lengths


def by_onnxruntime(file: Path, images: np.ndarray) -> list[np.ndarray]:
    ort = pytest.importorskip("onnxruntime", reason="needs the cpu or gpu extra")
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})


def quantised(source: Path, out: Path, images: np.ndarray) -> Path:
    quantization = pytest.importorskip("onnxruntime.quantization", reason="needs the cpu extra")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{onnx.load(source).graph.input[0].name: images}]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    kind = quantization.QuantType.QInt8
    quantization.quantize_static(
        source, out, Reader(), per_channel=True, activation_type=kind, weight_type=kind
    )
    return out


def test_fp32_graph_runs_in_fp32(tiny: Tiny, tmp_path: Path) -> None:
    with TvmBackend.open(write_onnx(tiny, tmp_path / "m.onnx"), ONE) as session:
        assert session.ran.precision_ran == "fp32"
        assert session.ran.notes == ()
        assert session.ran.details["heavy_kernels_by_precision"] == {"fp32": 2}
        assert session.inputs[0].shape == ("n", 3, 16, 16)
        assert session.outputs[0].shape == ("n", 5)


def test_fp16_multiplies_halves(tiny: Tiny, tmp_path: Path) -> None:
    file = write_onnx(tiny, tmp_path / "m.onnx")
    with TvmBackend.open(file, SessionOptions("fp16", threads=1)) as session:
        out = session.run(batch())["output0"]
        assert session.ran.precision_ran == "fp16"
        assert session.ran.details["heavy_kernels_by_precision"] == {"fp16": 2}
        assert "accuracy, not speed" in session.ran.notes[0]
    wanted = tiny(batch())
    assert cosine(out, wanted).min() > 0.9999
    assert not np.allclose(out, wanted, rtol=1e-5, atol=1e-6)


def test_int8_graph_is_told_as_simulated(tiny: Tiny, tmp_path: Path) -> None:
    source = write_onnx(tiny, tmp_path / "m.onnx")
    file = quantised(source, tmp_path / "int8.onnx", batch(8))
    with TvmBackend.open(file, SessionOptions("int8", threads=1)) as session:
        out = session.run(batch())["output0"]
        assert session.ran.precision_ran == "fp32 (int8 weights)"
        assert "simulates int8" in session.ran.notes[0]
    assert cosine(out, by_onnxruntime(file, batch())[0]).min() > 0.9999
    assert not np.allclose(out, tiny(batch()), rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="built in int8, but fp32"):
        TvmBackend.open(file, ONE)
    with pytest.raises(InputError, match="built in int8, but fp16"):
        TvmBackend.open(file, SessionOptions("fp16", threads=1))


def test_int8_label_on_an_fp32_graph_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    file = write_onnx(tiny, tmp_path / "m.onnx")
    with pytest.raises(InputError, match="built in fp32, but int8"):
        TvmBackend.open(file, SessionOptions("int8", threads=1))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_sample_recogniser_agrees_with_onnxruntime(precision: str) -> None:
    file = Path(__file__).parents[2] / "datasets" / "sample" / "recognition.onnx"
    images = np.random.default_rng(0).normal(0, 1, (3, 3, 112, 112)).astype(np.float32)
    with TvmBackend.open(file, SessionOptions(precision, threads=2)) as session:  # type: ignore[arg-type]
        (out,) = session.run(images).values()
    (wanted,) = by_onnxruntime(file, images)
    if precision == "fp32":
        np.testing.assert_allclose(out, wanted, rtol=1e-3, atol=1e-5)
    assert cosine(out, wanted).min() > 0.9999


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mobilefacenet", (2, 3, 112, 112)),
        ("y1", (2, 3, 112, 112)),
        ("retinaface_mnet025", (1, 3, 320, 320)),
        ("scrfd_500m_bnkps", (1, 3, 640, 640)),
        ("ulfg_version-RFB-320", (1, 3, 240, 320)),
        ("yunet_n_dynamic", (1, 3, 320, 320)),
    ],
)
def test_real_models_agree_with_onnxruntime(
    shared_data: Path, name: str, shape: tuple[int, ...]
) -> None:
    file = shared_data / "models" / f"{name}.onnx"
    images = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
    with TvmBackend.open(file, SessionOptions(threads=2, image=shape[1:])) as session:  # type: ignore[arg-type]
        outputs = session.run(images)
    for given, wanted in zip(outputs.values(), by_onnxruntime(file, images), strict=True):
        assert np.abs(given - wanted).max() <= 1e-6 + 1e-3 * np.abs(wanted).max()


def test_what_was_compiled_is_found_again(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    file = write_onnx(tiny, tmp_path / "m.onnx")
    with TvmBackend.open(file, ONE) as session:
        first = session.run(batch())["output0"]
        ran = session.ran
    monkeypatch.setattr(tvm_build, "compile_graph", None)
    with TvmBackend.open(file, ONE) as session:
        assert np.array_equal(session.run(batch())["output0"], first)
        assert session.ran == ran


def test_a_damaged_cache_is_made_anew(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    file = write_onnx(tiny, tmp_path / "m.onnx", size=4)
    TvmBackend.open(file, ONE).close()
    (kept,) = (tmp_path / "cache" / "tvm").glob("*/model.so")
    whole = kept.read_bytes()
    kept.unlink()  # the loader may still map it
    kept.write_bytes(whole[: len(whole) // 2])
    with TvmBackend.open(file, ONE) as session:
        assert np.isfinite(session.run(batch())["output0"]).all()
    assert kept.stat().st_size > len(whole) // 2
    assert [path.name for path in kept.parent.parent.iterdir()] == [kept.parent.name]


def test_without_a_compiler_models_run_uncached(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tvm_build.cc, "get_cc", lambda: None)
    file = write_onnx(tiny, tmp_path / "m.onnx")
    with TvmBackend.open(file, ONE) as session:
        given = session.run(batch())["output0"]
    np.testing.assert_allclose(given, tiny(batch()), rtol=1e-3, atol=1e-5)
    assert not (tmp_path / "cache").exists()
    with pytest.raises(UnavailableError, match="g\\+\\+"):
        library(file, tmp_path / "m.so")


def test_a_library_is_refused_before_its_code_is_loaded(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = library(write_onnx(tiny, tmp_path / "m.onnx"), tmp_path / "m.so")
    monkeypatch.setattr("evalkit.backends.tvm.backend.load_library", None)
    beside = tvm_build.record_file(file)
    record = json.loads(beside.read_text())
    changes = {
        "another processor": ({"features": ["avx9000"]}, "lacks avx9000"),
        "another version": ({"tvm": "0.1"}, "compiled by TVM 0.1"),
        "another library": ({"sha256": "0" * 64}, "not the library"),
        "another form": ({"surprise": 1}, "no record"),
    }
    for change, told in changes.values():
        beside.write_text(json.dumps({**record, **change}))
        with pytest.raises((InputError, UnavailableError), match=told):
            TvmBackend.open(file, ONE)
    beside.write_text(json.dumps(record))
    with pytest.raises(InputError, match="compiled at fp32, but fp16"):
        TvmBackend.open(file, SessionOptions("fp16", threads=1))
    beside.unlink()
    with pytest.raises(InputError, match="no record"):
        TvmBackend.open(file, ONE)


def test_unknown_operator_is_the_models_fault(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in "ab"]
    node = helper.make_node("Frobnicate", ["a"], ["b"], domain="nowhere")
    graph = helper.make_graph([node], "odd", infos[:1], infos[1:])
    file = tmp_path / "odd.onnx"
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("nowhere", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), file)
    with pytest.raises(InputError, match=r"odd\.onnx.*Frobnicate"):
        TvmBackend.open(file, ONE)


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in "abc"]
    node = helper.make_node("Add", ["a", "b"], ["c"])
    file = tmp_path / "two.onnx"
    graph = helper.make_graph([node], "add", infos[:2], infos[2:])
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), file)
    with pytest.raises(InputError, match="has 2 inputs"):
        TvmBackend.open(file, ONE)


def test_external_data_outside_the_folder_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    file = write_onnx(tiny, tmp_path / "inside" / "m.onnx")
    model = onnx.load(file)
    tensor = next(t for t in model.graph.initializer if t.name == "fc.weight")
    (tmp_path / "secret.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret.bin"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"m\.onnx"):
        TvmBackend.open(file, ONE)


def test_an_unwritable_cache_is_told(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="EVALKIT_CACHE"):
        TvmBackend.open(write_onnx(tiny, tmp_path / "m.onnx"), ONE)


def test_the_callers_cores_and_environment_are_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    file = write_onnx(tiny, tmp_path / "m.onnx")
    cores, variables = os.sched_getaffinity(0), dict(os.environ)
    with TvmBackend.open(file, SessionOptions(threads=2)) as session:
        session.run(batch())
        assert os.sched_getaffinity(0) == cores
        assert dict(os.environ) == variables


def test_each_thread_that_calls_gets_the_threads_asked_for(tiny: Tiny, tmp_path: Path) -> None:
    file = write_onnx(tiny, tmp_path / "m.onnx")
    seen: list[tuple[int, bool]] = []

    def use() -> None:
        given = session.run(batch())["output0"]
        seen.append((int(tvm.runtime.num_threads()), np.array_equal(given, wanted)))

    with TvmBackend.open(file, SessionOptions(threads=3)) as session:
        wanted = session.run(batch())["output0"]
        other = threading.Thread(target=use)
        other.start()
        other.join()
        use()
    assert seen == [(3, True), (3, True)]


def test_sessions_of_different_threads_run_side_by_side(tiny: Tiny, tmp_path: Path) -> None:
    file = write_onnx(tiny, tmp_path / "m.onnx")
    with (
        TvmBackend.open(file, SessionOptions(threads=1)) as one,
        TvmBackend.open(file, SessionOptions(threads=3)) as three,
    ):
        assert (one.ran.threads, three.ran.threads) == (1, 3)
        given = [session.run(batch())["output0"] for session in (one, three, one)]
    assert np.array_equal(given[0], given[2])
    np.testing.assert_allclose(given[0], given[1], rtol=1e-6)


def odd_network(path: Path, *, softmax: bool) -> tuple[Path, tuple[int, ...]]:
    """Sizes that no vector divides, and operators of many forms."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(11)
    shapes = {"a": (7, 3, 3, 3), "b": (7,), "deep": (7, 1, 3, 3), "point": (13, 7, 1, 1)}
    shapes |= {"two": (13, 13, 2, 2), "slope": (13, 1, 1), "fc": (13, 5), "bias": (5,)}
    weights = {n: rng.normal(0, 0.3, s).astype(np.float32) for n, s in shapes.items()}
    weights["high"] = np.float32(2.0)
    weights["low"] = np.float32(-0.5)
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "a", "b"], ["1"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Clip", ["1", "low", "high"], ["2"]),
        node("Conv", ["2", "deep"], ["3"], group=7, pads=[1, 1, 1, 1]),
        node("Add", ["3", "2"], ["4"]),
        node("Conv", ["4", "point"], ["5"]),
        node("PRelu", ["5", "slope"], ["6"]),
        node("MaxPool", ["6"], ["7"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("ConvTranspose", ["7", "two"], ["8"], strides=[2, 2]),
        node("Sigmoid", ["8"], ["9"]),
        node("GlobalAveragePool", ["9"], ["10"]),
        node("Flatten", ["10"], ["11"]),
        node("Gemm", ["11", "fc", "bias"], ["12"]),
    ]
    if softmax:
        nodes.append(node("Softmax", ["12"], ["y"], axis=1))
    else:
        nodes.append(node("ReduceL2", ["12"], ["13"], axes=[1], keepdims=1))
        nodes.append(node("Div", ["12", "13"], ["y"]))
    infos = [("x", ["n", 3, 17, 23]), ("y", ["n", 5])]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in infos]
    held = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "odd", infos[:1], infos[1:], held)
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path, (3, 17, 23)


@pytest.mark.parametrize("softmax", [True, False])
def test_odd_sizes_and_many_operators_agree_with_onnxruntime(tmp_path: Path, softmax: bool) -> None:
    file, image = odd_network(tmp_path / "odd.onnx", softmax=softmax)
    images = np.random.default_rng(5).normal(0, 1, (3, *image)).astype(np.float32)
    (wanted,) = by_onnxruntime(file, images)
    with TvmBackend.open(file, SessionOptions(threads=2)) as session:
        (out,) = session.run(images).values()
        (alone,) = session.run(images[1:2]).values()
    np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(alone, wanted[1:2], rtol=1e-4, atol=1e-6)
    with TvmBackend.open(file, SessionOptions("fp16", threads=2)) as session:
        (out,) = session.run(images).values()
    np.testing.assert_allclose(out, wanted, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize(("precision", "ran"), [("fp16", "fp16"), ("int8", "fp32 (int8 weights)")])
def test_converting_writes_a_library_for_any_batch(
    tiny: Tiny, tmp_path: Path, precision: str, ran: str
) -> None:
    pytest.importorskip("onnxruntime.quantization", reason="needs the cpu extra")
    from evalkit.convert.base import ConvertSettings
    from evalkit.convert.tvm import TvmConverter

    source, out = write_onnx(tiny, tmp_path / "m.onnx"), tmp_path / "m.so"
    settings = ConvertSettings(precision=precision, shape=(1, 3, 16, 16))  # type: ignore[arg-type]
    built = TvmConverter.build(source, out, settings, [batch(4), batch(4)])
    assert built.versions["apache-tvm"] == tvm.__version__
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.so", "m.so.json"]
    assert bool(TvmConverter.layers(source, settings)) == (precision == "int8")
    with TvmBackend.open(out, SessionOptions(precision, threads=1)) as session:  # type: ignore[arg-type]
        assert session.ran.precision_ran == ran
        assert session.inputs[0].batch is None
        for size in (1, 4):
            given = session.run(batch(size))["output0"]
            assert cosine(given, tiny(batch(size))).min() > 0.99


def test_mending_leaves_the_model_alone_and_its_meaning_the_same(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    from evalkit.backends.tvm.onnx import mended

    sizes = numpy_helper.from_array(np.array([1, 2, 8, 8], np.int64), "sizes")
    empty = numpy_helper.from_array(np.zeros(0, np.float32), "empty")
    node = helper.make_node("Resize", ["x", "empty", "empty", "sizes"], ["y"], mode="nearest")
    infos = [("x", [1, 2, 4, 4]), ("y", [1, 2, 8, 8])]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in infos]
    graph = helper.make_graph([node], "resize", infos[:1], infos[1:], [sizes, empty])
    imports = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    before = model.SerializeToString()
    assert list(mended(model).graph.node[0].input) == ["x", "", "", "sizes"]
    assert model.SerializeToString() == before
    onnx.save(model, tmp_path / "resize.onnx")
    images = np.random.default_rng(2).normal(0, 1, (1, 2, 4, 4)).astype(np.float32)
    with TvmBackend.open(tmp_path / "resize.onnx", ONE) as session:
        (out,) = session.run(images).values()
    np.testing.assert_array_equal(out, by_onnxruntime(tmp_path / "resize.onnx", images)[0])
