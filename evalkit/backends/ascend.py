"""Ascend ``.om`` models by the Python interface of Huawei's ``ais_bench``.

Written to the published interface (``InferSession``: ``get_inputs``, ``get_outputs``, ``infer``,
``free_resource``); it has not been run on hardware by us. Where the board is elsewhere,
``evalkit dump`` and the backend ``outputs`` need nothing of it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Sequence
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
    only_input,
)
from evalkit.core.errors import InputError

_REMEDY = (
    "Install CANN, then the wheels aclruntime and ais_bench of Ascend's tools repository, on the "
    "machine of the device; or carry files: evalkit dump, then --backend outputs."
)
_DTYPES = {"float": "float32", "half": "float16"}


class AscendBackend(Backend):
    """``.om`` models on an Ascend device."""

    name: ClassVar[str] = "ascend"

    @classmethod
    def probe(cls) -> Probe:
        """See `Backend.probe`."""
        try:
            importlib.import_module("aclruntime")
            importlib.import_module("ais_bench.infer.interface")
        except Exception as error:  # a vendor's library may fail in any way
            return Probe(
                available=False,
                reason=f"ais_bench cannot be imported ({first_line(error)}).",
                remedy=_REMEDY,
            )
        devices = tuple(f"npu:{path.name.removeprefix('davinci')}" for path in _devices())
        if not devices:
            return Probe(
                available=False,
                version=_version(),
                reason="There is no Ascend device (/dev/davinci0).",
                remedy="Check npu-smi info, and that this user may open /dev/davinci*.",
            )
        return Probe(True, _version(), devices, PRECISIONS)

    @classmethod
    def open(cls, model: Path, options: SessionOptions) -> Session:
        """See `Backend.open`; the precision is that which the model was built for."""
        device = free_device(cls.name, cls.probe(), options.device, "npu")
        check_file(model)
        return AscendSession(model, device, options)


class AscendSession(Session):
    """One ``.om`` model of fixed shapes; see `Session`.

    Parameters
    ----------
    model : Path
    device : int
    options : SessionOptions
    """

    def __init__(self, model: Path, device: int, options: SessionOptions) -> None:
        interface: Any = importlib.import_module("ais_bench.infer.interface")
        self.model = model
        try:
            self._session: Any = interface.InferSession(device, str(model))
        except Exception as error:
            raise InputError(
                f"{model}: ais_bench cannot load it on npu:{device}: {first_line(error)}. Convert "
                "it by ATC for this device (--soc_version)."
            ) from error
        self.inputs = _infos(self._session.get_inputs())
        self.outputs = _infos(self._session.get_outputs())
        info = only_input(self.inputs, model)
        if any(not isinstance(size, int) for size in info.shape):
            raise InputError(
                f"{model} has dynamic shapes {list(info.shape)}. Convert it by ATC with fixed ones "
                f"(--input_shape {info.name}:32,3,112,112)."
            )
        self.ran = Ran(
            backend=AscendBackend.name,
            version=_version(),
            device=f"npu:{device}",
            precision_requested=options.precision,
            precision_ran=as_its_user_says(options.precision),
            threads=None,
            details={"mode": "static"},
            notes=("An .om model does not tell its precision.",),
        )

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """See `Session.run`."""
        if self._session is None:
            raise InputError(f"The session of {self.model} is closed; open the model again.")
        feed = check_batch(batch, self.inputs[0], self.model)
        try:
            values = self._session.infer([feed], mode="static")
        except Exception as error:
            raise InputError(
                f"{self.model}: ais_bench cannot run a batch of shape {batch.shape}: "
                f"{first_line(error)}."
            ) from error
        names = (output.name for output in self.outputs)
        return float32_outputs(names, [np.array(value) for value in values], self.model)

    def close(self) -> None:
        """See `Session.close`."""
        session, self._session = self._session, None
        if session is not None and hasattr(session, "free_resource"):
            session.free_resource()


def _devices() -> list[Path]:
    return sorted(
        path for path in Path("/dev").glob("davinci*") if re.fullmatch(r"davinci\d+", path.name)
    )


def _version() -> str:
    try:
        return importlib.metadata.version("ais_bench")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _infos(descriptions: Sequence[Any]) -> tuple[TensorInfo, ...]:
    """Read ``name``, ``shape`` and ``datatype`` (``dtype.float32``) of aclruntime."""
    found = []
    for held in descriptions:
        dtype = str(held.datatype).rsplit(".", 1)[-1].lower()
        shape = tuple(int(size) if int(size) > 0 else None for size in held.shape)
        found.append(TensorInfo(str(held.name), _DTYPES.get(dtype, dtype), shape))
    return tuple(found)
