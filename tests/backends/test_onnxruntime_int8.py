"""int8 on CPUs whose kernels cut sums: the probe, and the note that a run carries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

ort = pytest.importorskip("onnxruntime", reason="needs the cpu or gpu extra")
onnx = pytest.importorskip("onnx", reason="needs the test extra")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from tiny_network import Tiny, write_int8, write_onnx  # noqa: E402

from evalkit.backends.base import SessionOptions  # noqa: E402
from evalkit.backends.onnxruntime import backend  # noqa: E402
from evalkit.backends.onnxruntime.backend import OnnxRuntimeBackend  # noqa: E402
from evalkit.backends.onnxruntime.saturation import (  # noqa: E402
    NOTE,
    PROBE,
    cpu_saturates,
    outputs,
    saturated,
)

CHANNELS, FILTERS, SIDE, STEP = 16, 8, 2, 0.25


def branch(kind: Any, name: str) -> tuple[list[Any], list[Any]]:
    """One convolution of largest values, between QuantizeLinear and DequantizeLinear."""
    most = np.iinfo(kind).max
    values = {
        "scale": np.float32(1 / most),
        "zero": kind(0),
        "weight": np.full((FILTERS, CHANNELS, 1, 1), 127, np.int8),
        "weight_scale": np.float32(1 / 127),
        "weight_zero": np.int8(0),
        "out_scale": np.float32(STEP),
    }
    steps = [
        ("QuantizeLinear", ["x", "scale", "zero"], "a"),
        ("DequantizeLinear", ["a", "scale", "zero"], "b"),
        ("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], "c"),
        ("Conv", ["b", "c"], "d"),
        ("QuantizeLinear", ["d", "out_scale", "zero"], "e"),
        ("DequantizeLinear", ["e", "out_scale", "zero"], "y"),
    ]
    nodes = [
        helper.make_node(
            operator, [n if n == "x" else f"{name}_{n}" for n in needs], [f"{name}_{out}"]
        )
        for operator, needs, out in steps
    ]
    return nodes, [numpy_helper.from_array(np.asarray(v), f"{name}_{k}") for k, v in values.items()]


def probe_graph() -> Any:
    """What the file of the package holds; save it there after a change."""
    parts = [branch(np.int8, "int8"), branch(np.uint8, "uint8")]
    graph = helper.make_graph(
        [node for nodes, _ in parts for node in nodes],
        "saturation",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, SIDE, SIDE])],
        [
            helper.make_tensor_value_info(f"{n}_y", TensorProto.FLOAT, [1, FILTERS, SIDE, SIDE])
            for n in ("int8", "uint8")
        ],
        [value for _, values in parts for value in values],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pairwise_product(kind: Any) -> NDArray[np.float32]:
    """The probe's output where sums of two products are cut at 16 bits, as VPMADDUBSW does.

    The instruction takes unsigned activations: signed ones are moved by 128, and what that adds is
    taken off afterwards.
    """
    moved = 128 if kind is np.int8 else 0
    most = np.iinfo(kind).max
    activations = np.full(CHANNELS, most + moved, np.int64)
    products = (activations * 127).reshape(-1, 2).sum(axis=1).clip(-(2**15), 2**15 - 1)
    total = products.sum() - moved * 127 * CHANNELS
    value = np.rint(total / (most * 127) / STEP) * STEP
    return np.full((1, FILTERS, SIDE, SIDE), value, np.float32)


EXACT = [np.full((1, FILTERS, SIDE, SIDE), CHANNELS, np.float32)] * 2


def test_the_probe_is_the_graph_of_this_file() -> None:
    assert onnx.load(PROBE) == probe_graph()


def test_without_optimisation_the_probe_is_exact() -> None:
    for out, exact in zip(outputs(ort.GraphOptimizationLevel.ORT_DISABLE_ALL), EXACT, strict=True):
        np.testing.assert_allclose(out, exact, atol=1e-5)


def test_cut_sums_are_told_from_rounding() -> None:
    cut = [pairwise_product(kind) for kind in (np.int8, np.uint8)]
    assert [float(out.max()) for out in cut] == [0.25, 8.0]
    assert saturated(cut, EXACT)
    assert saturated([EXACT[0], cut[1]], EXACT)
    assert saturated([cut[0], EXACT[1]], EXACT)
    assert not saturated([out - STEP for out in EXACT], EXACT)
    assert not saturated(EXACT, EXACT)


def test_this_cpu_is_measured() -> None:
    """Either exact, or the very sums that the instruction gives."""
    fast = outputs(ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    expected = EXACT
    if cpu_saturates():
        expected = [pairwise_product(kind) for kind in (np.int8, np.uint8)]
    for out, value in zip(fast, expected, strict=True):
        np.testing.assert_allclose(out, value, atol=STEP)


@pytest.mark.parametrize("cuts", [True, False])
def test_a_run_of_int8_carries_the_note(
    tiny: Tiny, models: Path, monkeypatch: pytest.MonkeyPatch, cuts: bool
) -> None:
    monkeypatch.setattr(backend, "cpu_saturates", lambda: cuts)
    with OnnxRuntimeBackend.open(write_int8(tiny, models), SessionOptions("int8", threads=1)) as s:
        assert s.ran.notes == ((NOTE,) if cuts else ())


def test_a_run_of_fp32_needs_no_probe(
    tiny: Tiny, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "cpu_saturates", lambda: pytest.fail("probed"))
    with OnnxRuntimeBackend.open(write_onnx(tiny, models / "fp32.onnx"), SessionOptions()) as s:
        assert s.ran.notes == ()
