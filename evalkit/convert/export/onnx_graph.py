"""Repairs of exported ONNX graphs, so that all runtimes accept them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from evalkit.convert.toolchain import optional


def mend(model: Any) -> Any:
    """Repair a graph of MXNet's exporter, in place.

    The slopes of PReLU get the shape (channels, 1, 1), so that they broadcast over an image as
    ONNX defines; ONNX Runtime refuses the shape (channels,) or applies it to columns. Weights are
    removed from the inputs, so that runtimes can fold them.
    """
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    for node in graph.node:
        if node.op_type == "PRelu" and node.input[1] in weights:
            slope = weights[node.input[1]]
            if len(slope.dims) == 1:
                shaped = numpy_helper.to_array(slope).reshape(-1, 1, 1)
                slope.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(shaped), slope.name))
    inputs = [value for value in graph.input if value.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)
    return model


def simplify(model: Any) -> Any:
    """Fold constants and remove operators without effect, by OnnxSlim.

    Raises
    ------
    evalkit.core.errors.UnavailableError
        It is not installed.
    """
    return optional("onnxslim", "--simplify").slim(model)


def save(model: Any, path: Path) -> None:
    """Check a graph and write it."""
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
