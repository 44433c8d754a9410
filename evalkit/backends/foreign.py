"""Backends of other packages: their exceptions are reported as their faults, not evalkit's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import Backend, Probe, Session, SessionOptions
from evalkit.core.errors import EvalkitError
from evalkit.core.registry import Entry, blamed

V = TypeVar("V")
Blamed = Callable[[str], AbstractContextManager[None]]


def guarded(backend: type[Backend], registered: str, entry: Entry) -> type[Backend]:
    """Wrap a backend so that it raises evalkit's errors only.

    Parameters
    ----------
    backend : type of Backend
    registered : str
        Its name.
    entry : Entry
        What registered it.
    """
    guard = partial(blamed, "backend", registered, entry)

    class Guarded(Backend):
        name = registered

        @classmethod
        def probe(cls) -> Probe:
            """See `Backend.probe`; an exception becomes the reason why it is not available."""
            try:
                with guard("while it was probed"):
                    return _of_kind(backend.probe(), Probe)
            except EvalkitError as error:
                return Probe(available=False, reason=str(error))

        @classmethod
        def open(cls, model: Path, options: SessionOptions) -> Session:
            """See `Backend.open`."""
            with guard(f"while it opened {model}"):
                return _GuardedSession(_of_kind(backend.open(model, options), Session), guard)

    return Guarded


class _GuardedSession(Session):
    """A session of another package; see `guarded`."""

    def __init__(self, session: Session, blamed: Blamed) -> None:
        self._session = session
        self._blamed = blamed
        self.inputs, self.outputs, self.ran = session.inputs, session.outputs, session.ran
        self.speed = session.speed

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """See `Session.run`."""
        with self._blamed(f"while it ran a batch of shape {batch.shape}"):
            outputs = self._session.run(batch)
            self.ran = self._session.ran  # some backends know only now what ran
            return _of_kind(outputs, dict)

    def close(self) -> None:
        """See `Session.close`."""
        with self._blamed("while it was closed"):
            self._session.close()


def _of_kind(value: V, kind: type) -> V:
    if not isinstance(value, kind):
        raise TypeError(f"it returned a {type(value).__name__} instead of a {kind.__name__}")
    return value
