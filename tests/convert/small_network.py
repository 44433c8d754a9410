"""A small network with PRelu and a residual addition as an ONNX file, and images for it."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE = 16
CHANNELS = 8
LAYERS = ("first", "second", "Conv_6", "fc")


def write_network(
    path: Path, *, opset: int = 17, batch: int | str = "n", gain: float = 1.0, unnamed: bool = True
) -> Path:
    """Write it; the third convolution has no name, as many exporters leave it."""
    rng = np.random.default_rng(7)
    flat = CHANNELS * SIDE * SIDE
    weights = {
        "a": gain * rng.normal(0, 0.3, (CHANNELS, 3, 3, 3)),
        "slope": rng.uniform(0.1, 0.4, (CHANNELS, 1, 1)),
        "b": rng.normal(0, 0.1, (CHANNELS, CHANNELS, 3, 3)),
        "c": rng.normal(0, 0.1, (CHANNELS, CHANNELS, 1, 1))
        * 10.0 ** -np.arange(8)[:, None, None, None].clip(0, 3),
        "w": rng.normal(0, 0.1, (5, flat)),
        "bias": rng.normal(0, 0.1, 5),
    }
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["1"], name="first", **pads),
        helper.make_node("PRelu", ["1", "slope"], ["2"], name="prelu"),
        helper.make_node("Conv", ["2", "b"], ["3"], name="second", **pads),
        helper.make_node("Add", ["2", "3"], ["4"], name="add"),
        helper.make_node("Conv", ["4", "c"], ["6"], name="" if unnamed else "third"),
        helper.make_node("Flatten", ["6"], ["7"], name="flatten"),
        helper.make_node("Gemm", ["7", "w", "bias"], ["y"], transB=1, name="fc"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def exact(model: Path, batches: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Run an int8 graph as it is written: each dequantised product in fp32, none is cut."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["y"], {"x": batch})[0] for batch in batches])


def write_yaml(path: Path, model: Path) -> Path:
    path.write_text(f"name: small\nfiles: {{any: {model}}}\ninput: {{size: [{SIDE}, {SIDE}]}}\n")
    return path


def picture(number: int, side: int = SIDE) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)


def encoded(number: int) -> bytes:
    return bytes(cv2.imencode(".png", picture(number))[1])


def network_input(file: Path) -> NDArray[np.float32]:
    """Decode an image to what the network takes: one RGB image, channels first, -1 to 1."""
    pixels = cv2.imread(str(file))[..., ::-1].transpose(2, 0, 1)[None]
    return ((pixels - 127.5) / 127.5).astype(np.float32)


def write_pairs(path: Path, pairs: int, first: int = 0) -> Path:
    images = [encoded(first + number) for number in range(2 * pairs)]
    path.write_bytes(pickle.dumps((images, [bool(i % 2) for i in range(pairs)])))
    return path


def write_people(folder: Path, people: int, each: int = 3, first: int = 0) -> Path:
    for person in range(people):
        own = folder / f"person-{person}"
        own.mkdir(parents=True)
        for number in range(each):
            (own / f"{number}.png").write_bytes(encoded(first + person * each + number))
    return folder


class Chunks:
    """Batches of noise for a converter."""

    def __init__(self, count: int = 6, rows: int = 4, tail: float = 0.0) -> None:
        rng = np.random.default_rng(5)
        self.held = [
            rng.normal(0, 1, (rows, 3, SIDE, SIDE)).astype(np.float32) for _ in range(count)
        ]
        if tail:  # one value in thousands far beyond the rest
            self.held[0][0, 0, 0, 0] = tail

    def __len__(self) -> int:
        return len(self.held)

    def __iter__(self):
        return iter(self.held)
