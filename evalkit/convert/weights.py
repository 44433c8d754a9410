"""A check of a model's weights before conversion, for ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evalkit.core.errors import InputError


def check_weights(source: Path) -> None:
    """Check an ONNX model for NaN weights: in some runtimes a Relu turns NaN into 0.

    Parameters
    ----------
    source : Path
        It has been opened before, so that its external data is checked. Other files pass.

    Raises
    ------
    evalkit.core.errors.InputError
        The message names the weight.
    """
    if source.suffix != ".onnx":
        return
    try:
        import onnx  # noqa: PLC0415 - optional: OpenVINO reads ONNX files without it
    except ImportError:
        return
    for tensor in onnx.load(source).graph.initializer:
        if tensor.data_type not in {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}:
            continue
        count = int(np.isnan(onnx.numpy_helper.to_array(tensor)).sum())
        if count:
            raise InputError(
                f"{source}: the weight {tensor.name!r} has {count:,} NaN values, so nothing can be "
                "calibrated or compared. Export or fetch the model again."
            )
