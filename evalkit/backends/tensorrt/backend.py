"""TensorRT: engines, and ONNX models built into engines, on NVIDIA's GPUs.

Written against the public API of TensorRT 10 and 11; tests check its names against their Python
bindings. It has not been run on hardware. What ran is read from the engine's layer information. An
engine built without detailed profiling verbosity has none; its precision is reported as unknown.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import PRECISIONS, Probe, SessionOptions, TensorInfo
from evalkit.backends.kernels import count_arithmetic, describe_precision
from evalkit.backends.session import ModelBackend, ModelSession
from evalkit.backends.tensorrt.build import bindings, cached_engine, load_engine, make_logger
from evalkit.backends.tensorrt.layers import check_label, check_profile, layer_kernels
from evalkit.backends.tensorrt.memory import Buffer, Device
from evalkit.backends.tensors import check_one_input, cuda_device_count, cuda_index, first_line
from evalkit.core.errors import InputError, install_command

ENGINES = frozenset({".engine", ".plan"})
_INSTALL = f"On a machine with an NVIDIA driver run: {install_command('tensorrt')}."


class TensorRtSession(ModelSession):
    """One engine; see `ModelSession`.

    Parameters
    ----------
    model : Path
        An engine (``.engine``, ``.plan``), else an ONNX file, which is built and cached.
    options : SessionOptions

    Raises
    ------
    evalkit.core.errors.InputError
        The engine is of another GPU or version, or runs in another precision.
    """

    backend = "tensorrt"
    runtime = "TensorRT"
    failures = ()  # it returns a status

    def __init__(self, model: Path, options: SessionOptions) -> None:
        super().__init__(model, options)
        index = cuda_index(options.device) or 0
        self._device = Device(index)
        self._buffers: dict[str, Buffer] = {}
        self._engine: Any = None
        self._execution: Any = None
        try:
            with self._device.current():
                self._open()
            counts = count_arithmetic(layer_kernels(self._layers()))
            check_label(model, counts, options.precision)
        except BaseException:
            self.close()
            raise
        self.ran = self._record(
            str(bindings().__version__),
            describe_precision(counts, options.precision),
            {
                "form": "engine" if model.suffix in ENGINES else "onnx",
                "gpu": self._device.kind,
                "heavy_kernels_by_precision": dict(counts),
                "profile": [list(shape) for shape in self._profile],
            },
            _notes(counts),
            device=f"cuda:{index}",
        )

    def _compute(self, batch: NDArray[Any]) -> Iterable[Any]:
        check_profile(self.model, batch.shape, self._profile[0], self._profile[-1])
        with self._device.current():
            return self._execute(batch, self._device.stream)

    def _release(self) -> None:
        with self._device.current():
            for buffer in self._buffers.values():
                buffer.free()
            self._buffers.clear()
            self._execution = self._engine = self._runtime = None
        self._device.close()

    def _open(self) -> None:
        trt, gpu, model = bindings(), self._device.kind, self.model
        self._logger = make_logger(trt)
        is_engine = model.suffix in ENGINES
        plan = model.read_bytes() if is_engine else cached_engine(model, gpu, self.options.image)
        self._runtime, self._engine = load_engine(trt, self._logger, plan, model, gpu)
        self._execution = self._engine.create_execution_context()
        if self._execution is None:
            raise InputError(self._failure("not enough memory of the device"))
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        check_one_input(inputs, model)
        self.inputs = (self._info(trt, inputs[0]),)
        self.outputs = tuple(self._info(trt, name) for name in names if name != inputs[0])
        shapes = self._engine.get_tensor_profile_shape(inputs[0], 0)
        self._profile = tuple(tuple(shape) for shape in shapes)
        self._buffers = {name: self._device.buffer() for name in names}

    def _info(self, trt: Any, name: str) -> TensorInfo:
        shape = tuple(int(n) if n >= 0 else None for n in self._engine.get_tensor_shape(name))
        try:
            dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name))).name
        except TypeError as error:
            raise InputError(
                f"{self.model}: NumPy has no element type for {name!r}. Build the engine with "
                "float inputs and outputs."
            ) from error
        return TensorInfo(name, dtype, shape)

    def _layers(self) -> str:
        trt = bindings()
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def _execute(self, batch: NDArray[Any], stream: Any) -> list[NDArray[Any]]:
        (info,) = self.inputs
        if not self._execution.set_input_shape(info.name, batch.shape):
            raise InputError(self._failure(f"a batch of shape {batch.shape}"))
        self._bind(info, batch.shape)
        self._buffers[info.name].host[...] = batch
        for output in self.outputs:
            self._bind(output, tuple(self._execution.get_tensor_shape(output.name)))
        self._buffers[info.name].upload(stream)
        if not self._execution.execute_async_v3(stream.handle):
            raise InputError(self._failure(f"a batch of shape {batch.shape}"))
        for output in self.outputs:
            self._buffers[output.name].download(stream)
        stream.synchronize()
        return [self._buffers[output.name].host.copy() for output in self.outputs]

    def _bind(self, info: TensorInfo, shape: tuple[int, ...]) -> None:
        address = self._buffers[info.name].fit(shape, np.dtype(info.dtype))
        self._execution.set_tensor_address(info.name, address)

    def _failure(self, action: str) -> str:
        errors = self._logger.errors
        cause = f": {errors[-1].rstrip('.')}" if errors else ""
        return f"{self.model}: TensorRT cannot run {action}{cause}. Give a smaller batch."


class TensorRtBackend(ModelBackend):
    """TensorRT engines and ONNX models; not tested on hardware."""

    name: ClassVar[str] = "tensorrt"
    session = TensorRtSession

    @classmethod
    def probe(cls) -> Probe:
        """See `Backend.probe`: names the part that is missing."""
        for module in ("tensorrt", "pycuda.driver"):
            try:
                importlib.import_module(module)
            except Exception as error:  # a package without its libraries fails in many ways
                reason = f"{module} cannot be imported: {first_line(error)}."
                return Probe(False, reason=reason, remedy=_INSTALL)
        version = str(bindings().__version__)
        count = cuda_device_count()
        if not count:
            return Probe(
                available=False,
                version=version,
                reason="The CUDA driver reports no GPU.",
                remedy="Run on a machine with an NVIDIA GPU (nvidia-smi lists its GPUs).",
            )
        devices = tuple(f"cuda:{index}" for index in range(count))
        return Probe(True, version, devices, PRECISIONS)


def _notes(counts: dict[str, int]) -> tuple[str, ...]:
    if not counts:
        return (
            "The engine was built without detailed profiling verbosity, so the precision of its "
            "layers is unknown. Build it again with trtexec --profilingVerbosity=detailed.",
        )
    if "tf32" in counts:
        return ("Some fp32 layers run in TF32, with ten bits of mantissa.",)
    return ()
