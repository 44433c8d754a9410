"""A tiny network with BatchNorm and PReLU: its arithmetic in plain NumPy, and as an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 16
CHANNELS = 4
FEATURES = 5
EPSILON = 1e-5


@dataclass(frozen=True)
class Tiny:
    """Weights by the names that PyTorch gives them."""

    weights: dict[str, NDArray[np.float32]]

    @classmethod
    def random(cls) -> Tiny:
        rng = np.random.default_rng(7)
        flat = CHANNELS * (SIDE // 2) ** 2
        weights = {
            "conv.weight": rng.normal(0, 0.3, (CHANNELS, 3, 3, 3)),
            "bn.weight": rng.uniform(0.5, 1.5, CHANNELS),
            "bn.bias": rng.normal(0, 0.2, CHANNELS),
            "bn.running_mean": rng.normal(0, 0.2, CHANNELS),
            "bn.running_var": rng.uniform(0.5, 1.5, CHANNELS),
            "prelu.weight": rng.uniform(0.1, 0.4, CHANNELS),
            "fc.weight": rng.normal(0, 0.1, (FEATURES, flat)),
            "fc.bias": rng.normal(0, 0.1, FEATURES),
        }
        return cls({name: value.astype(np.float32) for name, value in weights.items()})

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Slow and plain, in float64: each output place on its own."""
        w = {name: value.astype(np.float64) for name, value in self.weights.items()}
        padded = np.pad(batch.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
        half = SIDE // 2
        out = np.empty((len(batch), CHANNELS, half, half))
        for row in range(half):
            for column in range(half):
                patch = padded[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
                for channel in range(CHANNELS):
                    out[:, channel, row, column] = (patch * w["conv.weight"][channel]).sum(
                        (1, 2, 3)
                    )
        shape = (1, CHANNELS, 1, 1)
        out = (out - w["bn.running_mean"].reshape(shape)) / np.sqrt(
            w["bn.running_var"].reshape(shape) + EPSILON
        )
        out = out * w["bn.weight"].reshape(shape) + w["bn.bias"].reshape(shape)
        out = np.where(out < 0, out * w["prelu.weight"].reshape(shape), out)
        flat = out.reshape(len(batch), -1)
        return (flat @ w["fc.weight"].T + w["fc.bias"]).astype(np.float32)


def batch(count: int = 4) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(0, 1, (count, 3, SIDE, SIDE)).astype(np.float32)


def write_onnx(
    tiny: Tiny,
    path: Path,
    *,
    size: int | str = "n",
    weights: type[np.generic] = np.float32,
    inputs: type[np.generic] = np.float32,
) -> Path:
    """Write the network; casts stand where weights and inputs differ in type."""
    import onnx
    from onnx import helper, numpy_helper

    def kind(dtype: type[np.generic]) -> int:
        return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    arrays = {name: value.astype(weights) for name, value in tiny.weights.items()}
    arrays["prelu.weight"] = arrays["prelu.weight"].reshape(CHANNELS, 1, 1)
    norm = ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"]
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=kind(weights)),
        helper.make_node(
            "Conv", ["x", "conv.weight"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1], name="conv"
        ),
        helper.make_node("BatchNormalization", ["c", *norm], ["b"], epsilon=EPSILON, name="bn"),
        helper.make_node("PRelu", ["b", "prelu.weight"], ["p"], name="prelu"),
        helper.make_node("Flatten", ["p"], ["f"], axis=1, name="flatten"),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["g"], transB=1, name="fc"),
        helper.make_node("Cast", ["g"], ["output0"], to=kind(np.float32)),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", kind(inputs), [size, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output0", kind(np.float32), [size, FEATURES])],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def write_int8(tiny: Tiny, folder: Path) -> Path:
    """Write the network quantised by ONNX Runtime's tool: QDQ pairs, a scale a channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{"image": batch(8)}]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    out = folder / "int8.onnx"
    source = write_onnx(tiny, folder / "to_quantise.onnx")
    quantize_static(source, out, Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
    return out
