"""MagicMind models by the Python runtime of Cambricon's MagicMind.

Written to the published interface (``magicmind.python.runtime``: ``Model``, ``Device``,
``create_i_engine``, ``create_i_context``, ``enqueue``); it has not been run on hardware by us.
Where the board is elsewhere, ``evalkit dump`` and the backend ``outputs`` need nothing of it.
"""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import (
    PRECISIONS,
    Backend,
    Probe,
    Ran,
    Session,
    SessionOptions,
    TensorInfo,
)
from evalkit.backends.tensors import (
    as_its_user_says,
    check_batch,
    check_file,
    first_line,
    float32_outputs,
    free_device,
)
from evalkit.core.errors import InputError

_RUNTIME = "magicmind.python.runtime"
_REMEDY = (
    "Install Cambricon's driver, CNToolkit and the wheel magicmind on the machine of the device; "
    "or carry files: evalkit dump, then --backend outputs."
)


class MagicMindBackend(Backend):
    """MagicMind models on an MLU."""

    name: ClassVar[str] = "magicmind"

    @classmethod
    def probe(cls) -> Probe:
        """See `Backend.probe`."""
        try:
            runtime: Any = importlib.import_module(_RUNTIME)
            with runtime.System() as system:
                count = int(system.device_count())
        except Exception as error:  # a vendor's library may fail in any way
            return Probe(
                available=False,
                reason=f"magicmind cannot be used ({first_line(error)}).",
                remedy=_REMEDY,
            )
        version = str(getattr(runtime, "__version__", "unknown"))
        if not count:
            return Probe(False, version, reason="There is no MLU.", remedy="Check cnmon.")
        return Probe(True, version, tuple(f"mlu:{index}" for index in range(count)), PRECISIONS)

    @classmethod
    def open(cls, model: Path, options: SessionOptions) -> Session:
        """See `Backend.open`; the precision is that which the model was built for."""
        device = free_device(cls.name, cls.probe(), options.device, "mlu")
        check_file(model)
        return MagicMindSession(model, device, options)


class MagicMindSession(Session):
    """One MagicMind model; see `Session`.

    Parameters
    ----------
    model : Path
    device : int
    options : SessionOptions
    """

    def __init__(self, model: Path, device: int, options: SessionOptions) -> None:
        runtime: Any = importlib.import_module(_RUNTIME)
        self.model = model
        with ExitStack() as opened:
            opened.enter_context(runtime.System())
            self._open(runtime, device, options)
            self._opened = opened.pop_all()

    def _open(self, runtime: Any, device: int, options: SessionOptions) -> None:
        model = self.model
        self._device = runtime.Device()
        self._device.id = device
        self._network = runtime.Model()
        for what, status in (
            ("activate the device", self._device.active()),
            ("read the model", self._network.deserialize_from_file(str(model))),
        ):
            self._succeeded(what, status)
        settings = runtime.Model.EngineConfig()
        settings.device_type = "MLU"
        engine = self._network.create_i_engine(settings)
        if engine is None:
            raise InputError(f"{model}: MagicMind makes no engine of it. Build it for this device.")
        self._engine = engine
        self._context = engine.create_i_context()
        self._queue = self._device.create_queue()
        self._feed = self._context.create_inputs()
        if len(self._feed) != 1:
            raise InputError(f"{model} has {len(self._feed)} inputs; one image is expected.")
        shape = tuple(
            int(size) if int(size) > 0 else None
            for size in self._network.get_input_dimensions()[0].GetDims()
        )
        self.inputs = (TensorInfo("input0", "float32", shape),)
        outputs = self.run(np.zeros([size or 1 for size in shape], np.float32))
        self.outputs = tuple(
            TensorInfo(name, "float32", (shape[0], *value.shape[1:]))
            for name, value in outputs.items()
        )
        self.ran = Ran(
            backend=MagicMindBackend.name,
            version=str(getattr(runtime, "__version__", "unknown")),
            device=f"mlu:{device}",
            precision_requested=options.precision,
            precision_ran=as_its_user_says(options.precision),
            threads=None,
            notes=("A MagicMind model is not asked for its precision.",),
        )

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """See `Session.run`."""
        if self._context is None:
            raise InputError(f"The session of {self.model} is closed; open the model again.")
        values: list[Any] = []
        self._feed[0].from_numpy(check_batch(batch, self.inputs[0], self.model))
        self._feed[0].to(self._device)
        self._succeeded("run", self._context.enqueue(self._feed, values, self._queue))
        self._succeeded("finish", self._queue.sync())
        arrays = [np.array(value.asnumpy()) for value in values]
        names = (f"output{place}" for place in range(len(arrays)))
        return float32_outputs(names, arrays, self.model)

    def close(self) -> None:
        """See `Session.close`."""
        if self._context is not None:
            self._context = self._engine = self._network = self._feed = None
            self._opened.close()

    def _succeeded(self, what: str, status: Any) -> None:
        if not status.ok():
            raise InputError(f"{self.model}: MagicMind could not {what}: {status}.")
