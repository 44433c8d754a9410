"""What an exported ONNX graph needs before runtimes take it as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from evalkit.core.errors import UnavailableError, install_command


def mend(model: Any) -> Any:
    """Mend a graph of MXNet's exporter.

    The slopes of PReLU get the shape (channels, 1, 1), by which they broadcast over an image as
    ONNX says; as (channels,) ONNX Runtime refuses them or takes them for columns. Weights are no
    inputs, so that runtimes can fold them.
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
    """Fold constants and drop what computes nothing, by OnnxSlim.

    Raises
    ------
    evalkit.core.errors.UnavailableError
        It is not installed.
    """
    try:
        import onnxslim  # noqa: PLC0415 - optional
    except ImportError as error:
        raise UnavailableError(
            f"--simplify needs OnnxSlim. Install it: {install_command('convert')}."
        ) from error
    return onnxslim.slim(model)


def save(model: Any, path: Path) -> None:
    """Check a graph and write it."""
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
