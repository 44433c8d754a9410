"""The embedding head: from a model's raw output to one vector for each face."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evalkit.core.errors import InputError


def embedding(
    outputs: dict[str, NDArray[np.float32]],
    count: int,
    name: str | None = None,
    rows: int | None = None,
) -> NDArray[np.float32]:
    """Return the embeddings of the first `count` samples of a batch.

    Parameters
    ----------
    outputs : dict of str to ndarray
        The session's outputs; the first axis is the batch.
    count : int
        Samples that are not padding.
    name : str, optional
        The output to read, for models with several.
    rows : int, optional
        Samples in the batch with padding: the output must have exactly so many rows. Without it,
        at least `count`.

    Returns
    -------
    ndarray of float32, shape (count, dim)

    Raises
    ------
    evalkit.core.errors.InputError
        The output does not exist, is ambiguous, or lacks a row for each sample.
    """
    if name is None and len(outputs) > 1:
        raise InputError(
            f"The model has {len(outputs)} outputs ({', '.join(outputs)}). Name the embedding "
            "under 'output' in the model's YAML."
        )
    chosen = next(iter(outputs)) if name is None else name
    if chosen not in outputs:
        raise InputError(
            f"The model has no output {chosen!r}, only {', '.join(outputs)}. Correct 'output' in "
            "the model's YAML."
        )
    value = outputs[chosen]
    fits = value.ndim >= 2 and value.shape[0] >= count
    if not fits or (rows is not None and value.shape[0] != rows):
        raise InputError(
            f"The output {chosen!r} has shape {value.shape}; an embedding model gives one row "
            f"for each of the {rows or count} images. Check that this is a recognition model."
        )
    return value[:count].reshape(count, -1)
