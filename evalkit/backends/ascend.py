"""Ascend ``.om`` models by the Python interface of Huawei's ``ais_bench``.

Written to the published interface (``InferSession``: ``get_inputs``, ``get_outputs``, ``infer``,
``free_resource``). We have not run it on hardware. Without the SDK, use ``evalkit dump`` and the
backend ``outputs``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import PRECISIONS, Probe, SessionOptions, TensorInfo
from evalkit.backends.boards import BoardBackend, BoardSession
from evalkit.backends.tensors import explained, first_line, only_input
from evalkit.core.errors import InputError
from evalkit.core.machine import installed_version

_REMEDY = (
    "Install CANN, then the wheels aclruntime and ais_bench of Ascend's tools repository, on the "
    "machine of the device; or exchange files: evalkit dump, then --backend outputs."
)
_DTYPES = {"float": "float32", "half": "float16"}


class AscendSession(BoardSession):
    """One ``.om`` model of fixed shapes; see `ModelSession`."""

    backend = "ascend"
    runtime = "ais_bench"

    def __init__(self, model: Path, options: SessionOptions) -> None:
        super().__init__(model, options)
        interface: Any = importlib.import_module("ais_bench.infer.interface")
        action = f"{model}: ais_bench cannot load it on {options.device}"
        with explained(action, "Convert it by ATC for this device (--soc_version)."):
            self._session: Any = interface.InferSession(self.device, str(model))
        self.inputs = _infos(self._session.get_inputs())
        self.outputs = _infos(self._session.get_outputs())
        info = only_input(self.inputs, model)
        if any(not isinstance(size, int) for size in info.shape):
            raise InputError(
                f"{model} has dynamic shapes {list(info.shape)}. Convert it by ATC with fixed ones "
                f"(--input_shape {info.name}:32,3,112,112)."
            )
        note = "An .om model does not tell its precision."
        self.ran = self._on_board(_version(), note, mode="static")

    def _compute(self, batch: NDArray[Any]) -> Iterable[Any]:
        return [np.array(value) for value in self._session.infer([batch], mode="static")]

    def _release(self) -> None:
        session, self._session = self._session, None
        if hasattr(session, "free_resource"):
            session.free_resource()


class AscendBackend(BoardBackend):
    """``.om`` models on an Ascend device."""

    name: ClassVar[str] = "ascend"
    kind = "npu"
    session = AscendSession

    @classmethod
    def probe(cls) -> Probe:
        """See `Backend.probe`."""
        try:
            importlib.import_module("aclruntime")
            importlib.import_module("ais_bench.infer.interface")
        except Exception as error:  # a vendor's library may fail in any way
            reason = f"ais_bench cannot be imported ({first_line(error)})."
            return Probe(False, reason=reason, remedy=_REMEDY)
        names = sorted(path.name for path in Path("/dev").glob("davinci*"))
        numbers = [match[1] for name in names if (match := re.fullmatch(r"davinci(\d+)", name))]
        if not numbers:
            return Probe(
                available=False,
                version=_version(),
                reason="There is no Ascend device (/dev/davinci0).",
                remedy="Check npu-smi info, and that this user may open /dev/davinci*.",
            )
        return Probe(True, _version(), tuple(f"npu:{number}" for number in numbers), PRECISIONS)


def _version() -> str:
    return installed_version("ais_bench") or "unknown"


def _infos(descriptions: Sequence[Any]) -> tuple[TensorInfo, ...]:
    """Read ``name``, ``shape`` and ``datatype`` (``dtype.float32``) of aclruntime."""
    infos = []
    for tensor in descriptions:
        dtype = str(tensor.datatype).rsplit(".", 1)[-1].lower()
        shape = tuple(int(size) if int(size) > 0 else None for size in tensor.shape)
        infos.append(TensorInfo(str(tensor.name), _DTYPES.get(dtype, dtype), shape))
    return tuple(infos)
