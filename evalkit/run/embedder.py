"""Recognition models as an engine: aligned faces in, one vector each out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import Session
from evalkit.core.settings import InputSpec
from evalkit.core.store import SHARD
from evalkit.heads.embedding import embedding
from evalkit.run.filling import NOT_FINITE, TaskOutputs
from evalkit.run.pipeline import Normaliser, Pixels, Tensor

PLAIN, FLIPPED = "embeddings", "flipped"
_REASON = NOT_FINITE.format(cause="overflow in a low precision?")


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """One batch of faces.

    Attributes
    ----------
    tensor : ndarray of float32 or uint8
        In the model's layout; faces that could not be read are zeros.
    readable : ndarray of bool, shape (n,)
    """

    tensor: Tensor
    readable: NDArray[np.bool_]


class Embedder:
    """Runs a session over batches of faces, and over their mirror images; see `Engine`.

    Parameters
    ----------
    session : Session
        Opened by the caller, who closes it.
    spec : InputSpec
    flip : bool
        Whether mirror images are run too.
    output : str or None
        The output that holds the embedding.
    batch_size : int
        A model of fixed batch size runs its own.
    """

    shard_size: ClassVar[int] = SHARD

    def __init__(
        self, session: Session, spec: InputSpec, *, flip: bool, output: str | None, batch_size: int
    ) -> None:
        self.session = session
        self.normalise = Normaliser(spec, session.inputs[0].dtype)
        self.output = output
        self.fields = (PLAIN, FLIPPED) if flip else (PLAIN,)
        self.task_size = session.inputs[0].batch or batch_size

    def prepare(self, images: Mapping[int, Pixels], count: int) -> Faces:
        """See `Engine.prepare`."""
        tensor = self.normalise.empty(count)
        readable = np.zeros(count, np.bool_)
        for place, image in images.items():
            self.normalise(image, tensor[place])
            readable[place] = True
        return Faces(tensor, readable)

    def infer(self, inputs: Faces) -> list[dict[str, NDArray[np.float32]]]:
        """See `Engine.infer`: the outputs of the faces, then those of their mirror images."""
        outputs = [self._run(inputs.tensor)]
        if FLIPPED in self.fields:
            outputs.append(self._run(self.normalise.flipped(inputs.tensor)))
        return outputs

    def decode(
        self, inputs: Faces, raw: list[dict[str, NDArray[np.float32]]], count: int
    ) -> TaskOutputs:
        """See `Engine.decode`: a row a face, of NaN where it has no usable embedding."""
        rows = self.session.inputs[0].batch or count
        views = [embedding(outputs, count, self.output, rows=rows) for outputs in raw]
        usable = inputs.readable.copy()
        for view in views:
            usable &= np.isfinite(view).all(axis=1)
        for view in views:
            view[~usable] = np.nan
        unusable = dict.fromkeys(np.flatnonzero(~usable).tolist(), _REASON)
        return TaskOutputs(dict(zip(self.fields, views, strict=True)), unusable)

    def _run(self, tensor: Tensor) -> dict[str, NDArray[np.float32]]:
        """Run a batch; a model of fixed batch size gets zeros behind it."""
        rows = self.session.inputs[0].batch or len(tensor)
        padding = [(0, rows - len(tensor)), *[(0, 0)] * (tensor.ndim - 1)]
        return self.session.run(tensor if rows == len(tensor) else np.pad(tensor, padding))
