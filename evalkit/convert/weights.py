"""Whether a model's weights can be converted, where reading them is cheap: in ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evalkit.core.errors import InputError


def check_weights(source: Path) -> None:
    """Refuse an ONNX model with NaN among its weights: some runtimes let a Relu swallow it.

    Parameters
    ----------
    source : Path
        It was opened already, so that its external data was checked. Other files pass.

    Raises
    ------
    evalkit.core.errors.InputError
        Names the weight.
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
                f"{source}: the weight {tensor.name!r} has {count:,} NaN values, so that nothing "
                "can be calibrated or compared. Export or fetch the model again."
            )
