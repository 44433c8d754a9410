"""A backend of another interpreter, and its session."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import Backend, Probe, Ran, Session, SessionOptions, TensorInfo
from evalkit.backends.worker.process import TIMEOUT, Worker
from evalkit.core.errors import EvalkitError, InputError, WorkerError


def isolated(backend: str, python: str | Path, timeout: float | None = None) -> type[Backend]:
    """Return a backend that runs in another interpreter.

    Parameters
    ----------
    backend : str
        Registered name.
    python : str or Path
        An interpreter of Python 3.10 or newer, with NumPy and the runtime.
    timeout : float or None
        Seconds that opening, and each batch, may take; None is 600.
    """
    limit = TIMEOUT if timeout is None else timeout
    probes: list[Probe] = []

    class Isolated(Backend):
        name = backend

        @classmethod
        def probe(cls) -> Probe:
            """See `Backend.probe`; the interpreter is probed once."""
            if not probes:
                probes.append(probe_in(python, backend, limit))
            return probes[0]

        @classmethod
        def open(cls, model: Path, options: SessionOptions) -> Session:
            """See `Backend.open`."""
            worker = Worker(python, threads=options.threads, timeout=limit)
            return WorkerSession(backend, model, options, worker)

    return Isolated


def probe_in(python: str | Path, backend: str, timeout: float = TIMEOUT) -> Probe:
    """Probe a backend in another interpreter; never raises."""
    try:
        with closing(Worker(python, timeout=timeout)) as worker:
            fields = worker.ask(f"probing {backend!r}", do="probe", backend=backend)
    except EvalkitError as error:
        return Probe(available=False, reason=str(error))
    tuples = {name: tuple(fields[name]) for name in ("devices", "precisions")}
    return Probe(**{**fields, **tuples})


class WorkerSession(Session):
    """A session in a worker process, which it owns; see `Session`.

    Parameters
    ----------
    backend : str
    model : Path
    options : SessionOptions
    worker : Worker
    """

    def __init__(self, backend: str, model: Path, options: SessionOptions, worker: Worker) -> None:
        self.model = model
        self._worker: Worker | None = worker
        message = {"backend": backend, "model": str(model), "options": asdict(options)}
        try:
            opened = worker.ask(f"opening {model}", do="open", **message)
        except BaseException:
            self.close()
            raise
        self.inputs, self.outputs = (
            tuple(TensorInfo(**{**info, "shape": tuple(info["shape"])}) for info in opened[name])
            for name in ("inputs", "outputs")
        )
        ran = Ran(**{**opened["ran"], "notes": tuple(opened["ran"]["notes"])})
        interpreter = {"path": str(worker.python), **worker.versions}
        self.ran = replace(ran, details={**ran.details, "interpreter": interpreter})

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """See `Session.run`.

        Raises
        ------
        evalkit.core.errors.WorkerError
            The worker died or hung, now or in an earlier run.
        """
        worker = self._worker
        if worker is None:
            raise InputError(f"The session of {self.model} is closed. Open the model again.")
        if batch.dtype.hasobject:
            raise InputError(f"{self.model}: the batch is of objects. Give float32 or uint8.")
        worker.check_alive()  # before its memory is written to
        places = worker.batches.write([("batch", batch)])
        try:
            outputs = worker.ask(f"running a batch of shape {batch.shape}", do="run", batch=places)
        except WorkerError as error:
            raise WorkerError(
                f"{error}\nStored outputs are kept: the same command resumes."
            ) from error
        return {name: value.copy() for name, value in worker.outputs.read(outputs).items()}

    def close(self) -> None:
        """See `Session.close`: ends the worker."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
