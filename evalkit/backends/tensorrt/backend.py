"""TensorRT: engines, and ONNX models built into engines, on NVIDIA's GPUs.

Written against the public API of TensorRT 10 and 11, whose names are checked against those in
their Python bindings. It has not been run on hardware. What ran is read from the engine's layer
information; an engine built without detailed profiling verbosity tells none, and its precision is
reported as unknown.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import Backend, Probe, Ran, Session, SessionOptions, TensorInfo
from evalkit.backends.kernels import count_arithmetic, describe_precision
from evalkit.backends.tensorrt.build import bindings, cached_engine, load_engine, make_logger
from evalkit.backends.tensorrt.layers import check_label, check_profile, layer_kernels
from evalkit.backends.tensorrt.memory import Buffer, Device
from evalkit.backends.tensors import (
    check_batch,
    check_file,
    check_offered,
    check_one_input,
    cuda_device_count,
    cuda_index,
    first_line,
    float32_outputs,
)
from evalkit.core.errors import InputError, install_command

ENGINES = frozenset({".engine", ".plan"})
_INSTALL = f"On a machine with an NVIDIA driver run: {install_command('tensorrt')}."


class TensorRtBackend(Backend):
    """TensorRT engines and ONNX models; not run on hardware so far."""

    name: ClassVar[str] = "tensorrt"

    @classmethod
    def probe(cls) -> Probe:
        """See `Backend.probe`: says which part is missing."""
        for module in ("tensorrt", "pycuda.driver"):
            try:
                importlib.import_module(module)
            except Exception as error:  # a package without its libraries fails in many ways
                return Probe(
                    available=False,
                    reason=f"{module} cannot be imported: {first_line(error)}.",
                    remedy=_INSTALL,
                )
        version = str(bindings().__version__)
        count = cuda_device_count()
        if not count:
            return Probe(
                available=False,
                version=version,
                reason="The CUDA driver reports no GPU.",
                remedy="Run on a machine with an NVIDIA GPU (nvidia-smi lists what it sees).",
            )
        devices = tuple(f"cuda:{index}" for index in range(count))
        return Probe(True, version, devices, ("fp32", "fp16", "bf16", "int8"))

    @classmethod
    def open(cls, model: Path, options: SessionOptions) -> Session:
        """See `Backend.open`.

        Raises
        ------
        evalkit.core.errors.InputError
            Besides: the engine is of another GPU or version, or runs in another precision.
        """
        check_offered(cls.name, cls.probe(), options.device, options.precision)
        check_file(model)
        return TensorRtSession(model, options)


class TensorRtSession(Session):
    """One engine; see `Session`.

    Parameters
    ----------
    model : Path
        An engine (``.engine``, ``.plan``), else an ONNX file, which is built and cached.
    options : SessionOptions
        Checked against the probe already.
    """

    def __init__(self, model: Path, options: SessionOptions) -> None:
        self.model = model
        index = cuda_index(options.device) or 0
        self._device: Device | None = Device(index)
        self._buffers: dict[str, Buffer] = {}
        self._engine: Any = None
        self._execution: Any = None
        try:
            with self._device.current():
                self._open(options)
        except BaseException:
            self.close()
            raise
        counts = count_arithmetic(layer_kernels(self._layers()))
        try:
            check_label(model, counts, options.precision)
        except InputError:
            self.close()
            raise
        self.ran = Ran(
            backend=TensorRtBackend.name,
            version=str(bindings().__version__),
            device=f"cuda:{index}",
            precision_requested=options.precision,
            precision_ran=describe_precision(counts, options.precision),
            threads=None,
            details={
                "form": "engine" if model.suffix in ENGINES else "onnx",
                "gpu": self._device.kind,
                "heavy_kernels_by_precision": dict(counts),
                "profile": [list(shape) for shape in self._profile],
            },
            notes=_notes(counts),
        )

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """See `Session.run`."""
        if self._device is None:
            raise InputError(f"The session of {self.model} is closed; open the model again.")
        (info,) = self.inputs
        checked = check_batch(batch, info, self.model)
        check_profile(self.model, checked.shape, self._profile[0], self._profile[-1])
        with self._device.current():
            values = self._compute(checked, self._device.stream)
        return float32_outputs((output.name for output in self.outputs), values, self.model)

    def close(self) -> None:
        """See `Session.close`."""
        if self._device is None:
            return
        with self._device.current():
            for buffer in self._buffers.values():
                buffer.free()
            self._buffers.clear()
            self._execution = self._engine = self._runtime = None
        self._device.close()
        self._device = None

    def _open(self, options: SessionOptions) -> None:
        assert self._device is not None
        trt, gpu = bindings(), self._device.kind
        self._logger = make_logger(trt)
        built = self.model.suffix in ENGINES
        plan = self.model.read_bytes() if built else cached_engine(self.model, gpu, options.image)
        self._runtime, self._engine = load_engine(trt, self._logger, plan, self.model, gpu)
        self._execution = self._engine.create_execution_context()
        if self._execution is None:
            raise InputError(self._failed("not enough memory of the device"))
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        given = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        check_one_input(given, self.model)
        self.inputs = (self._info(trt, given[0]),)
        self.outputs = tuple(self._info(trt, name) for name in names if name != given[0])
        self._profile = tuple(
            tuple(shape) for shape in self._engine.get_tensor_profile_shape(given[0], 0)
        )
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

    def _compute(self, batch: NDArray[Any], stream: Any) -> list[NDArray[Any]]:
        (info,) = self.inputs
        if not self._execution.set_input_shape(info.name, batch.shape):
            raise InputError(self._failed(f"a batch of shape {batch.shape}"))
        self._bind(info, batch.shape)
        self._buffers[info.name].host[...] = batch
        for output in self.outputs:
            self._bind(output, tuple(self._execution.get_tensor_shape(output.name)))
        self._buffers[info.name].upload(stream)
        if not self._execution.execute_async_v3(stream.handle):
            raise InputError(self._failed(f"a batch of shape {batch.shape}"))
        for output in self.outputs:
            self._buffers[output.name].download(stream)
        stream.synchronize()
        return [self._buffers[output.name].host.copy() for output in self.outputs]

    def _bind(self, info: TensorInfo, shape: tuple[int, ...]) -> None:
        address = self._buffers[info.name].fit(shape, np.dtype(info.dtype))
        self._execution.set_tensor_address(info.name, address)

    def _failed(self, what: str) -> str:
        told = f": {self._logger.told[-1].rstrip('.')}" if self._logger.told else ""
        return f"{self.model}: TensorRT cannot run {what}{told}. Give a smaller batch."


def _notes(counts: dict[str, int]) -> tuple[str, ...]:
    if not counts:
        return (
            "The engine was built without detailed profiling verbosity: it does not tell what its "
            "layers run in. Build it again with it (trtexec --profilingVerbosity=detailed).",
        )
    if "tf32" in counts:
        return ("Some fp32 layers run in TF32, with ten bits of mantissa.",)
    return ()
