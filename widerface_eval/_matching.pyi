import numpy as np
from numpy.typing import NDArray

def match_range(
    boxes: NDArray[np.float64],
    offsets: NDArray[np.int64],
    faces: NDArray[np.float64],
    face_offsets: NDArray[np.int64],
    kept: NDArray[np.uint8],
    iou: float,
    int32: bool,
    first: int,
    last: int,
    best: NDArray[np.int64],
    overlap: NDArray[np.float64],
    outcome: NDArray[np.int8],
    recalled: NDArray[np.uint8],
) -> None: ...
