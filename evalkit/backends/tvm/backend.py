"""TVM: ONNX models compiled for this processor, and libraries compiled before.

An ONNX model is compiled within seconds for each size of image that it is given, for any batch
where the model allows it, and kept in the cache (`evalkit.core.files.cache_dir`). What ran is read
from the compiled graph: the element types that its convolutions and products take. TVM rounds
an fp32 model to fp16 itself; int8 is a QDQ graph, which TVM simulates.

A compiled library (``.so``) is native code and runs when it is opened: open only those that you
trust.

TVM keeps a pool of threads for each thread that calls it, and would bind both to cores. It is told
how many of them to use before each run, and to leave the cores to the system.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tvm
import tvm_ffi
from numpy.typing import NDArray
from tvm import relax

from evalkit.backends.base import Backend, Probe, Ran, Session, SessionOptions, TensorInfo
from evalkit.backends.kernels import describe_precision
from evalkit.backends.tensors import (
    check_batch,
    check_file,
    check_offered,
    first_line,
    float32_outputs,
    trial_shapes,
)
from evalkit.backends.tvm.build import Record, cached, load_library, read_record
from evalkit.backends.tvm.lower import Shape
from evalkit.backends.tvm.onnx import load_onnx, onnx_infos
from evalkit.core.errors import InputError, UnavailableError, install_command
from evalkit.core.machine import available_cores

Program = tuple[Callable[..., Any], Record]
_BIG_CORES = 1  # tvm's affinity mode; without binding it only counts
_LEAST_POOL = 16  # a pool never grows; what is not used sleeps
_environment_lock = threading.Lock()
_pool = threading.local()


class TvmBackend(Backend):
    """ONNX models and compiled libraries by TVM, on the CPU."""

    name: ClassVar[str] = "tvm"

    @classmethod
    def probe(cls) -> Probe:
        """See `Backend.probe`."""
        if tvm_ffi.get_global_func("target.build.llvm", allow_missing=True) is None:
            return Probe(
                available=False,
                reason="This TVM was built without LLVM, and cannot compile for a CPU.",
                remedy=f"Run: {install_command('tvm')}.",
            )
        return Probe(True, tvm.__version__, ("cpu",), ("fp32", "fp16", "int8"))

    @classmethod
    def open(cls, model: Path, options: SessionOptions) -> Session:
        """See `Backend.open`.

        Raises
        ------
        evalkit.core.errors.InputError
            Besides: the graph was built in another precision, or TVM lacks one of its operators.
        """
        check_offered(cls.name, cls.probe(), options.device, options.precision)
        check_file(model)
        return TvmSession(model, options)


class TvmSession(Session):
    """One model; see `Session`.

    Parameters
    ----------
    model : Path
        An ONNX file, or a library (``.so``) with its record beside it.
    options : SessionOptions
        Checked against the probe already.
    """

    def __init__(self, model: Path, options: SessionOptions) -> None:
        self.model = model
        self._precision = options.precision
        self._programs: dict[Shape, Program] | None = {}
        self._any_batch = False
        self.threads = options.threads or available_cores()
        record = self._open(options.image)
        self.ran = Ran(
            backend=TvmBackend.name,
            version=tvm.__version__,
            device="cpu",
            precision_requested=options.precision,
            precision_ran=describe_precision(record.kernels, record.precision),
            threads=self.threads,
            details={
                "form": "library" if self._proto is None else "onnx",
                "processor": record.cpu,
                "built_precision": record.built,
                "heavy_kernels_by_precision": record.kernels,
                "tvm_ffi": record.ffi,
            },
            notes=_notes(record),
        )

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """See `Session.run`: a size that is new to the model is compiled first."""
        if self._programs is None:
            raise InputError(f"The session of {self.model} is closed; open the model again.")
        (info,) = self.inputs
        checked = check_batch(batch, info, self.model)
        values = self._compute(checked)
        return float32_outputs((output.name for output in self.outputs), values, self.model)

    def close(self) -> None:
        """See `Session.close`."""
        self._programs = None

    def _open(self, image: tuple[int, int, int] | None) -> Record:
        if self.model.suffix == ".so":
            self._proto = None
            return self._open_library()
        self._proto = load_onnx(self.model)
        info, declared = onnx_infos(self._proto)
        self.inputs = (info,)
        self._any_batch = info.batch is None
        failures = []
        for shape in trial_shapes(info, image):
            try:
                self._compute(np.zeros(shape, info.dtype))
            except InputError as error:
                failures.append(error)
            else:
                record = self._program(shape)[1]
                pairs = zip(declared, record.outputs, strict=True)
                self.outputs = tuple(_declared(*pair) for pair in pairs)
                return record
        if len(failures) == 1:
            raise failures[0]
        told = "; ".join(dict.fromkeys(first_line(error) for error in failures))
        raise InputError(f"{self.model} runs at none of the sizes tried: {told}")

    def _open_library(self) -> Record:
        record = read_record(self.model)
        if record.precision != self._precision:
            raise InputError(
                f"{self.model} was compiled at {record.precision}, but {self._precision} was asked "
                f"for. Ask for --precision {record.precision}, or compile it again."
            )
        self.inputs, self.outputs = (record.input,), record.outputs
        self._any_batch = record.input.batch is None
        (shape,) = trial_shapes(record.input)
        assert self._programs is not None
        self._programs[self._key(shape)] = _runnable(load_library(self.model)), record
        self._compute(np.zeros(shape, record.input.dtype))
        return record

    def _key(self, shape: tuple[int, ...]) -> Shape:
        return (None if self._any_batch else shape[0], *shape[1:])

    def _program(self, shape: tuple[int, ...]) -> Program:
        assert self._programs is not None
        key = self._key(shape)
        if key not in self._programs:
            try:
                module, record = cached(self._proto, key, self._precision, self.model)
            except InputError:
                if not self._any_batch:
                    raise
                self._any_batch = False  # a graph that computes with its batch size: one by one
                return self._program(shape)
            self._programs[key] = _runnable(module), record
        return self._programs[key]

    def _compute(self, batch: NDArray[Any]) -> list[Any]:
        _use_threads(self.threads)  # the compiler computes with them too
        main, _ = self._program(batch.shape)
        try:
            result = main(tvm.runtime.tensor(batch))
        except Exception as error:
            raise InputError(
                f"{self.model}: TVM cannot run a batch of shape {batch.shape}: "
                f"{first_line(error)}. Give the size that the model was made for, or a smaller "
                "batch."
            ) from error
        values = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
        return [value.numpy() for value in values]


def _runnable(module: Any) -> Callable[..., Any]:
    main: Callable[..., Any] = relax.VirtualMachine(module, tvm.cpu())["main"]
    return main


def _use_threads(threads: int) -> None:
    """Let what this thread calls run on so many threads of its pool, bound to no core."""
    if getattr(_pool, "threads", None) == threads:
        return
    size = max(threads, available_cores(), _LEAST_POOL)
    with _environment(TVM_NUM_THREADS=str(size), TVM_BIND_THREADS="0"):
        tvm_ffi.get_global_func("runtime.config_threadpool")(_BIG_CORES, threads)
    ready = int(tvm.runtime.num_threads())
    if ready != threads:
        raise UnavailableError(
            f"TVM has {ready} threads here, not {threads}. Ask for --threads {ready}."
        )
    _pool.threads = threads


@contextmanager
def _environment(**changes: str) -> Iterator[None]:
    """Set variables that the runtime reads from the process's environment, for a moment."""
    with _environment_lock:
        held = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in held.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _declared(declared: TensorInfo, compiled: TensorInfo) -> TensorInfo:
    """Take the sizes that the file declares; open ones stay open."""
    if len(declared.shape) == len(compiled.shape):
        return TensorInfo(declared.name, compiled.dtype, declared.shape)
    return TensorInfo(declared.name, compiled.dtype, (None,) * len(compiled.shape))


def _notes(record: Record) -> tuple[str, ...]:
    if record.precision == "int8" and "int8" not in record.kernels:
        return (
            "TVM simulates int8: values are rounded to 8 bits, but its products ran in fp32. It "
            "tells the accuracy of int8, not its speed.",
        )
    if record.precision == "fp16":
        return (
            "Weights and activations are fp16, the sums of their products fp32. A CPU without "
            "fp16 instructions converts them one by one: it tells accuracy, not speed.",
        )
    return ()
