"""What the backends of accelerator boards share: devices by number, and a precision on trust."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from evalkit.backends.base import Ran, Session, SessionOptions
from evalkit.backends.session import ModelBackend, ModelSession
from evalkit.backends.tensors import as_its_user_says


class BoardSession(ModelSession):
    """A model on a board: the file does not tell its precision, only the user does."""

    @property
    def device(self) -> int:
        """The board's number."""
        return int(self.options.device.partition(":")[2])

    def _on_board(self, version: str, note: str, **details: Any) -> Ran:
        """Return the record of what ran."""
        precision = as_its_user_says(self.options.precision)
        return self._record(version, precision, details, (note,), device=self.options.device)


class BoardBackend(ModelBackend):
    """A runtime of boards; the device ``cpu``, the default, stands for the first board.

    Attributes
    ----------
    kind : str
        What devices are called: ``npu`` for ``npu:0``.
    """

    kind: ClassVar[str]

    @classmethod
    def open(cls, model: Path, options: SessionOptions) -> Session:
        """See `Backend.open`; the model runs at the precision that it was built for."""
        devices = cls.probe().devices
        if devices and options.device in {"cpu", cls.kind}:
            options = replace(options, device=devices[0])
        return super().open(model, options)
