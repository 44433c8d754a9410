"""TVM: ONNX models compiled for this processor, and libraries compiled earlier.

An ONNX model is compiled within seconds for each image size, and for any batch size where the model
allows it. The cache keeps the result (`evalkit.core.files.cache_dir`). What ran is read from the
compiled graph: the element types that its convolutions and products take. TVM rounds an fp32 model
to fp16 itself; int8 is a QDQ graph, which TVM simulates.

A compiled library (``.so``) is native code and runs when it is opened: open only libraries that you
trust.

TVM keeps a pool of threads for each calling thread, and would bind both to cores. Before each run
the session sets the pool's size and turns the binding off.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import tvm
import tvm_ffi
from numpy.typing import NDArray
from tvm import relax

from evalkit.backends.base import Probe, SessionOptions, TensorInfo
from evalkit.backends.kernels import describe_precision
from evalkit.backends.session import ModelBackend, ModelSession
from evalkit.backends.tensors import trial_shapes
from evalkit.backends.tvm.build import Record, cached, load_library, read_record
from evalkit.backends.tvm.graphs import Shape
from evalkit.backends.tvm.onnx import load_onnx, onnx_infos
from evalkit.core.errors import InputError, UnavailableError, install_command
from evalkit.core.machine import available_cores

Program = tuple[Callable[..., Any], Record]
_BIG_CORES = 1  # tvm's affinity mode; without binding it only counts
_LEAST_POOL = 16  # a pool never grows; its unused threads sleep
_environment_lock = threading.Lock()
_pool = threading.local()


class TvmSession(ModelSession):
    """One model; see `ModelSession`.

    Parameters
    ----------
    model : Path
        An ONNX file, or a library (``.so``) with its record beside it.
    options : SessionOptions

    Raises
    ------
    evalkit.core.errors.InputError
        The graph was built in another precision, or TVM lacks one of its operators.
    """

    backend = "tvm"
    runtime = "TVM"

    def __init__(self, model: Path, options: SessionOptions) -> None:
        super().__init__(model, options)
        self._programs: dict[Shape, Program] = {}
        self._proto: Any = None
        record = self._open_library() if model.suffix == ".so" else self._open_onnx()
        self.ran = self._record(
            tvm.__version__,
            describe_precision(record.kernels, record.precision),
            {
                "form": "library" if self._proto is None else "onnx",
                "processor": record.cpu,
                "built_precision": record.built,
                "heavy_kernels_by_precision": record.kernels,
                "tvm_ffi": record.ffi,
            },
            _notes(record),
            threads=self.threads,
        )

    def _open_onnx(self) -> Record:
        self._proto = load_onnx(self.model)
        info, declared = onnx_infos(self._proto)
        self.inputs, self._any_batch = (info,), info.batch is None
        record = self._program(self._trial().shape)[1]
        self.outputs = tuple(map(_declared, declared, record.outputs))
        return record

    def _open_library(self) -> Record:
        record, precision = read_record(self.model), self.options.precision
        if record.precision != precision:
            raise InputError(
                f"{self.model} was compiled at {record.precision}, but {precision} was asked for. "
                f"Ask for --precision {record.precision}, or compile it again."
            )
        self.inputs, self.outputs = (record.input,), record.outputs
        self._any_batch = record.input.batch is None
        program = _runnable(load_library(self.model)), record
        (shape,) = trial_shapes(record.input)
        self._programs[self._key(shape)] = program
        self._trial()
        return record

    def _key(self, shape: tuple[int, ...]) -> Shape:
        return (None if self._any_batch else shape[0], *shape[1:])

    def _program(self, shape: tuple[int, ...]) -> Program:
        """Return the program for a shape; a shape that is new to the model is compiled first."""
        key = self._key(shape)
        if key not in self._programs:
            try:
                module, record = cached(self._proto, key, self.options.precision, self.model)
            except InputError:
                if not self._any_batch:
                    raise
                self._any_batch = False  # the graph computes with its batch size: compile each
                return self._program(shape)
            self._programs[key] = _runnable(module), record
        return self._programs[key]

    def _compute(self, batch: NDArray[Any]) -> Iterable[Any]:
        _use_threads(self.threads)  # the compiler computes with them too
        main, _ = self._program(batch.shape)
        result = main(tvm.runtime.tensor(batch))
        values = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
        return [value.numpy() for value in values]

    def _release(self) -> None:
        self._programs = {}


class TvmBackend(ModelBackend):
    """ONNX models and compiled libraries by TVM, on the CPU."""

    name: ClassVar[str] = "tvm"
    session = TvmSession

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


def _runnable(module: Any) -> Callable[..., Any]:
    main: Callable[..., Any] = relax.VirtualMachine(module, tvm.cpu())["main"]
    return main


def _use_threads(threads: int) -> None:
    """Set how many threads of its pool the calling thread uses, bound to no core."""
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
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
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
            "TVM simulates int8: values are rounded to 8 bits, but its products ran in fp32. This "
            "measures the accuracy of int8, not its speed.",
        )
    if record.precision == "fp16":
        return (
            "Weights and activations are fp16, the sums of their products fp32. A CPU without "
            "fp16 instructions converts them one by one: this measures accuracy, not speed.",
        )
    return ()
