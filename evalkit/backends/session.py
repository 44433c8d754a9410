"""What the sessions of all runtimes do alike: open a file, try it, run checked batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evalkit.backends import tensors
from evalkit.backends.base import Backend, Ran, Session, SessionOptions
from evalkit.core.errors import InputError
from evalkit.core.machine import available_cores


class ModelSession(Session):
    """A model file that a runtime runs in this process.

    A subclass sets `inputs`, `outputs` and `ran`, and computes.

    Parameters
    ----------
    model : Path
    options : SessionOptions
        The caller has checked them against the probe.

    Attributes
    ----------
    backend, runtime : str
        The registered name, and the runtime's name in messages.
    failures : tuple of types
        What the runtime raises for a batch that it cannot run.
    """

    backend: ClassVar[str]
    runtime: ClassVar[str]
    failures: ClassVar[tuple[type[BaseException], ...]] = (Exception,)

    def __init__(self, model: Path, options: SessionOptions) -> None:
        self.model = model
        self.options = options
        self.threads = options.threads or available_cores()
        self._closed = False

    @abstractmethod
    def _compute(self, batch: NDArray[Any]) -> Iterable[Any]:
        """Run a checked batch; return the outputs in the model's order."""

    def _release(self) -> None:
        """Release the runtime's memory; called once."""

    @staticmethod
    def cause(error: BaseException) -> str:
        """Return the line of the runtime's message that names the cause."""
        return tensors.first_line(error)

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """See `Session.run`."""
        if self._closed:
            raise InputError(f"The session of {self.model} is closed. Open the model again.")
        values = self._attempt(tensors.check_batch(batch, self.inputs[0], self.model))
        return tensors.float32_outputs((output.name for output in self.outputs), values, self.model)

    def close(self) -> None:
        """See `Session.close`."""
        if not self._closed:
            self._closed = True
            self._release()

    def _attempt(self, batch: NDArray[Any]) -> Iterable[Any]:
        """Compute; turn the runtime's error into one that names the batch and the remedy."""
        action = f"{self.model}: {self.runtime} cannot run a batch of shape {batch.shape}"
        remedy = "Give the image size that the model was made for, or a smaller batch."
        with tensors.explained(action, remedy, self.failures, self.cause):
            return self._compute(batch)

    def _trial(self, images: int = 1) -> NDArray[Any]:
        """Run the smallest batch that the model takes; return the batch.

        Parameters
        ----------
        images : int
            The batch size to try where the model leaves it open.
        """
        info = tensors.only_input(self.inputs, self.model)
        errors: list[Exception] = []
        for shape in tensors.trial_shapes(info, self.options.image):
            try:
                batch = np.zeros((info.batch or images, *shape[1:]), np.dtype(info.dtype))
                self._attempt(batch)
            except (InputError, TypeError) as error:  # NumPy has no such element type
                errors.append(error)
            else:
                return batch
        if len(errors) == 1:
            raise errors[0]
        causes = dict.fromkeys(self.cause(error.__cause__ or error) for error in errors)
        raise InputError(
            f"{self.model} loads, but runs at none of the image sizes tried: {'; '.join(causes)}. "
            "State its size under 'input' in the model's YAML, or export it with a fixed size."
        )

    def _record(
        self,
        version: str,
        precision: str,
        details: Mapping[str, Any],
        notes: tuple[str, ...] = (),
        *,
        device: str = "cpu",
        threads: int | None = None,
    ) -> Ran:
        """Return the record of what ran; `precision` is the arithmetic that the runtime reports."""
        requested = self.options.precision
        return Ran(
            self.backend, version, device, requested, precision, threads, dict(details), notes
        )


class ModelBackend(Backend):
    """A runtime that opens model files in this process.

    Attributes
    ----------
    session : type of ModelSession
    """

    session: ClassVar[type[ModelSession]]

    @classmethod
    def open(cls, model: Path, options: SessionOptions) -> Session:
        """See `Backend.open`."""
        tensors.check_offered(cls.name, cls.probe(), options.device, options.precision)
        tensors.check_file(model)
        return cls.session(model, options)
