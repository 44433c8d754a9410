"""MagicMind models by the Python runtime of Cambricon's MagicMind.

Written to the published interface (``magicmind.python.runtime``: ``Model``, ``Device``,
``create_i_engine``, ``create_i_context``, ``enqueue``). We have not run it on hardware. Without the
SDK, use ``evalkit dump`` and the backend ``outputs``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import PRECISIONS, Probe, SessionOptions, TensorInfo
from evalkit.backends.boards import BoardBackend, BoardSession
from evalkit.backends.tensors import first_line
from evalkit.core.errors import InputError

_RUNTIME = "magicmind.python.runtime"
_REMEDY = (
    "Install Cambricon's driver, CNToolkit and the wheel magicmind on the machine of the device; "
    "or exchange files: evalkit dump, then --backend outputs."
)


class MagicMindSession(BoardSession):
    """One MagicMind model; see `ModelSession`."""

    backend = "magicmind"
    runtime = "MagicMind"
    failures = ()  # it returns a status

    def __init__(self, model: Path, options: SessionOptions) -> None:
        super().__init__(model, options)
        runtime: Any = importlib.import_module(_RUNTIME)
        with ExitStack() as opened:
            opened.enter_context(runtime.System())
            self._load(runtime)
            self._opened = opened.pop_all()
        note = "MagicMind does not tell the precision of a model."
        self.ran = self._on_board(_version(runtime), note)

    def _load(self, runtime: Any) -> None:
        self._device = runtime.Device()
        self._device.id = self.device
        self._network = runtime.Model()
        self._check("activate the device", self._device.active())
        self._check("read the model", self._network.deserialize_from_file(str(self.model)))
        settings = runtime.Model.EngineConfig()
        settings.device_type = "MLU"
        self._engine = self._network.create_i_engine(settings)
        if self._engine is None:
            raise InputError(
                f"{self.model}: MagicMind makes no engine of it. Build it for this device."
            )
        self._context = self._engine.create_i_context()
        self._queue = self._device.create_queue()
        self._feed = self._context.create_inputs()
        if len(self._feed) != 1:
            raise InputError(f"{self.model} has {len(self._feed)} inputs; one image is expected.")
        sizes = self._network.get_input_dimensions()[0].GetDims()
        shape = tuple(int(size) if int(size) > 0 else None for size in sizes)
        self.inputs = (TensorInfo("input0", "float32", shape),)
        values = self._compute(np.zeros([size or 1 for size in shape], np.float32))
        self.outputs = tuple(
            TensorInfo(f"output{place}", "float32", (shape[0], *value.shape[1:]))
            for place, value in enumerate(values)
        )

    def _compute(self, batch: NDArray[Any]) -> Iterable[Any]:
        values: list[Any] = []
        self._feed[0].from_numpy(batch)
        self._feed[0].to(self._device)
        self._check("run", self._context.enqueue(self._feed, values, self._queue))
        self._check("finish", self._queue.sync())
        return [np.array(value.asnumpy()) for value in values]

    def _release(self) -> None:
        self._context = self._engine = self._network = self._feed = None
        self._opened.close()

    def _check(self, action: str, status: Any) -> None:
        if not status.ok():
            raise InputError(f"{self.model}: MagicMind could not {action}: {status}.")


class MagicMindBackend(BoardBackend):
    """MagicMind models on an MLU."""

    name: ClassVar[str] = "magicmind"
    kind = "mlu"
    session = MagicMindSession

    @classmethod
    def probe(cls) -> Probe:
        """See `Backend.probe`."""
        try:
            runtime: Any = importlib.import_module(_RUNTIME)
            with runtime.System() as system:
                count = int(system.device_count())
        except Exception as error:  # a vendor's library may fail in any way
            reason = f"magicmind cannot be used ({first_line(error)})."
            return Probe(False, reason=reason, remedy=_REMEDY)
        if not count:
            return Probe(False, _version(runtime), reason="There is no MLU.", remedy="Check cnmon.")
        devices = tuple(f"mlu:{index}" for index in range(count))
        return Probe(True, _version(runtime), devices, PRECISIONS)


def _version(runtime: Any) -> str:
    return str(getattr(runtime, "__version__", "unknown"))
