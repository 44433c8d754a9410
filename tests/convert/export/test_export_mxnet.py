"""MXNet models to ONNX: the mending of the graph, and the real exporter where it is at hand."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the test extra")
ort = pytest.importorskip("onnxruntime", reason="needs the cpu or gpu extra")

from onnx import helper, numpy_helper  # noqa: E402

from evalkit.cli import main  # noqa: E402
from evalkit.convert.export.mxnet import explicit  # noqa: E402
from evalkit.convert.export.onnx_graph import mend  # noqa: E402


def prelu_model(slope: np.ndarray) -> onnx.ModelProto:
    """As MXNet writes it: a slope for each channel, and the weights among the inputs."""
    float_type = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("PRelu", ["x", "slope"], ["y"])],
        "g",
        [
            helper.make_tensor_value_info("x", float_type, ["n", *slope.shape, 4, 4]),
            helper.make_tensor_value_info("slope", float_type, list(slope.shape)),
        ],
        [helper.make_tensor_value_info("y", float_type, None)],
        [numpy_helper.from_array(slope, "slope")],
    )
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def test_slopes_of_prelu_broadcast_over_channels() -> None:
    """Four channels on images of four columns: unmended, slopes go to columns."""
    slope = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    images = np.random.default_rng(0).normal(0, 1, (2, 4, 4, 4)).astype(np.float32)
    wanted = np.where(images < 0, images * slope.reshape(4, 1, 1), images)
    model = prelu_model(slope)
    found = ort.InferenceSession(model.SerializeToString()).run(None, {"x": images})[0]
    assert not np.allclose(found, wanted)
    session = ort.InferenceSession(mend(model).SerializeToString())
    assert [value.name for value in session.get_inputs()] == ["x"]
    np.testing.assert_allclose(session.run(None, {"x": images})[0], wanted, rtol=1e-6)


def test_defaults_that_mxnets_exporter_takes_for_false_are_written_out() -> None:
    symbol = {
        "nodes": [
            {"op": "FullyConnected", "name": "fc", "attr": {"num_hidden": "8"}},
            {"op": "BatchNorm", "name": "bn", "param": {"fix_gamma": "False"}},
            {"op": "null", "name": "data"},
        ]
    }
    fully, norm, data = explicit(symbol)["nodes"]
    assert fully["attrs"] == {"flatten": "True", "no_bias": "False", "num_hidden": "8"}
    assert norm["attrs"] == {"fix_gamma": "False", "eps": "0.001"}
    assert data["attrs"] == {}


def test_without_an_environment_the_remedy_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    for name in ("m-symbol.json", "m-0000.params"):
        (tmp_path / name).write_text("{}")
    words = ["export", str(tmp_path / "m-symbol.json"), "--to", "onnx", "--out"]
    assert main([*words, str(tmp_path / "m.onnx")]) == 2
    assert "evalkit env create mxnet" in capsys.readouterr().err


@pytest.fixture(scope="module")
def mxnet_python() -> str:
    python = os.environ.get("EVALKIT_MXNET_PYTHON")
    if not python:
        pytest.skip("EVALKIT_MXNET_PYTHON names no interpreter with MXNet")
    if subprocess.run([python, "-c", "import onnx"], check=False, capture_output=True).returncode:
        pytest.skip("the interpreter of EVALKIT_MXNET_PYTHON has no onnx")
    return python


@pytest.mark.slow
@pytest.mark.parametrize("batch", [[], ["--batch", "4"]])
def test_a_real_face_model(
    shared_data: Path,
    tmp_path: Path,
    mxnet_python: str,
    batch: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The data's own y1.onnx differs from MXNet by at most 1.5e-6."""
    source, out = shared_data / "models" / "y1-symbol.json", tmp_path / "y1.onnx"
    words = ["export", source, "--to", "onnx", "--out", out, "--mean", 0, "--std", 1, *batch]
    assert main([str(word) for word in [*words, "--python", mxnet_python]]) == 0
    assert "met" in capsys.readouterr().out
    images = np.random.default_rng(1).integers(0, 256, (4, 3, 112, 112)).astype(np.float32)
    models = [ort.InferenceSession(str(p)) for p in (out, shared_data / "models" / "y1.onnx")]
    mine, other = (m.run(None, {m.get_inputs()[0].name: images})[0] for m in models)
    np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-6)
