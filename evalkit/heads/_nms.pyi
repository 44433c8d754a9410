import numpy as np
from numpy.typing import NDArray

def greedy(
    boxes: NDArray[np.float64],
    threshold: float,
    extra: float,
    chosen: NDArray[np.float64],
    kept: NDArray[np.int64],
) -> int: ...
