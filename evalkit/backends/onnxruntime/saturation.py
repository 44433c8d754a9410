"""Whether int8 products are exact on this CPU, measured once a process.

x86 without VNNI multiplies int8 by ``VPMADDUBSW``, which adds two products in 16 bits and cuts a
sum that does not fit. The same graph then gives other figures than on its target. The probe is one
graph with such sums, by optimised kernels and with optimisation off: there the runtime leaves each
pair of QuantizeLinear and DequantizeLinear as it stands, and multiplies in fp32.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

PROBE = Path(__file__).with_name("saturation.onnx")
"""Two convolutions of largest values: activations of int8 and of uint8, weights of int8."""

NOTE = (
    "This CPU cuts int8 sums that do not fit 16 bits (x86 without VNNI), so that the figures of "
    "this graph can be worse here than on its target. Measure int8 on a CPU with VNNI, or on the "
    "target itself."
)

_STEP = 0.25  # of the probe's quantised outputs


def saturated(fast: list[NDArray[np.float32]], exact: list[NDArray[np.float32]]) -> bool:
    """Say whether outputs of optimised kernels differ from the exact ones by more than rounding.

    Examples
    --------
    >>> exact = [np.full((1, 8, 2, 2), 16, np.float32)]
    >>> saturated([exact[0] - 0.25], exact), saturated([exact[0] / 2], exact)
    (False, True)
    """
    return any(bool((np.abs(a - b) > _STEP).any()) for a, b in zip(fast, exact, strict=True))


@cache
def cpu_saturates() -> bool:
    """Say whether the runtime's int8 kernels cut sums on this CPU."""
    level = ort.GraphOptimizationLevel
    return saturated(outputs(level.ORT_ENABLE_ALL), outputs(level.ORT_DISABLE_ALL))


def outputs(level: Any) -> list[NDArray[np.float32]]:
    """Run the probe at a level of graph optimisation."""
    settings = ort.SessionOptions()
    settings.graph_optimization_level = level
    settings.intra_op_num_threads = 1
    session = ort.InferenceSession(str(PROBE), settings, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    ones = np.ones(image.shape, np.float32)
    values: list[NDArray[np.float32]] = session.run(None, {image.name: ones})
    return values
