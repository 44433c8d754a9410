"""PyTorch: TorchScript, exported programs, and state dicts of registered architectures.

What really ran is read from the operators of a trial run, below autocast, with the element types
of their inputs. bf16 is autocast over the stored weights, fp16 a cast of the network; an int8 file
is quantised already. CUDA was written against the API and never run on hardware.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from evalkit.backends.base import PRECISIONS, Precision, Probe, Session, SessionOptions, TensorInfo
from evalkit.backends.kernels import Kernel, count_arithmetic, describe_precision
from evalkit.backends.session import ModelBackend, ModelSession
from evalkit.backends.tensors import cuda_index
from evalkit.backends.torch.cuda import Carrier
from evalkit.backends.torch.int8 import Compiled, profiled_kernels, saturates, why_not_int8
from evalkit.backends.torch.loading import Loaded, cause, load, parameter_dtypes
from evalkit.core.errors import InputError, UnavailableError, WrongPrecisionError

HEAVY_OPS = frozenset(
    {"_convolution", "convolution", "conv1d", "conv2d", "conv3d", "linear", "addmm", "mm", "bmm"}
    | {"matmul", "baddbmm", "mkldnn_convolution", "cudnn_convolution", "addmv", "mv"}
    | {"scaled_dot_product_attention"}
    # Inductor's forms of them, then the legacy quantised ones.
    | {"qconv_pointwise", "qconv2d_pointwise", "qlinear_pointwise"}
    | {"_convolution_pointwise", "_linear_pointwise", "_mkl_linear"}
    | {"conv2d_relu", "conv2d_add", "conv2d_add_relu", "linear_relu"}
)
# Element types of the input; autocast and int8 begin at float32.
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
# Element types that a file may hold, the best first.
STORED = {
    "fp32": ("float32",),
    "fp16": ("float16", "float32"),
    "bf16": ("float32", "bfloat16"),
    "int8": ("float32",),
}


class TorchSession(ModelSession):
    """One PyTorch network; see `ModelSession`.

    Raises
    ------
    evalkit.core.errors.InputError
        The weights are not those of the architecture, or the file holds another precision.
    """

    backend = "torch"
    runtime = "PyTorch"
    failures = (RuntimeError, AssertionError, TypeError)
    cause = staticmethod(cause)

    def __init__(self, model: Path, options: SessionOptions) -> None:
        super().__init__(model, options)
        index = cuda_index(options.device)
        self._carrier = Carrier(None if index is None else torch.device(f"cuda:{index}"))
        self._autocast = options.precision == "bf16"
        loaded = load(model, options.architecture)
        stored = parameter_dtypes(loaded.module)
        _check_stored(model, loaded, stored, options.precision)
        dtype = DTYPES.get(options.precision, torch.float32)
        # An exported program is fixed in its layout as in its types.
        self._format = torch.contiguous_format if loaded.form == "exported" else torch.channels_last
        module = loaded.module
        if loaded.form != "exported" and not loaded.quantised:
            module = module.to(dtype=None if self._autocast else dtype, memory_format=self._format)
        module = module.to(device=self._carrier.device)
        compiled = loaded.form == "exported" and loaded.quantised
        self._module: Callable[[torch.Tensor], Any] | None = (
            Compiled(module, self.threads) if compiled else module
        )
        self.inputs = (replace(loaded.input, dtype=str(dtype).removeprefix("torch.")),)
        outputs, kernels = self._watched(compiled=compiled)
        self.outputs = tuple(_output_info(k, v, self.inputs[0]) for k, v in outputs.items())
        counts = count_arithmetic(kernels, HEAVY_OPS)
        ran = describe_precision(counts, options.precision)
        self.ran = self._record(
            str(torch.__version__),
            ran,
            {
                "form": loaded.form,
                "architecture": options.architecture if loaded.form == "weights" else None,
                "stored_dtypes": dict(stored),
                "parameter_dtypes": dict(parameter_dtypes(module)),
                "autocast": "bfloat16" if self._autocast else None,
                "compiler": "inductor" if compiled else None,
                "heavy_kernels_by_precision": dict(counts),
                "memory_format": str(self._format).removeprefix("torch."),
                "flush_denormal": self._flushes_denormals(),
                "tf32": False,
                "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            },
            _notes(loaded, stored, options.precision, ran),
            device=str(self._carrier.device),
            threads=self.threads,
        )

    def _compute(self, batch: NDArray[Any]) -> Iterable[Any]:
        return self._carrier.to_host(self._forward(batch).values())

    def _release(self) -> None:
        self._module = None
        self._carrier.release()

    def _forward(
        self, batch: NDArray[Any], watch: AbstractContextManager[Any] | None = None
    ) -> dict[str, Any]:
        assert self._module is not None
        layout = self._format if batch.ndim == 4 else torch.contiguous_format
        with (
            _settings(self.threads),
            self._carrier.stream(),
            torch.inference_mode(),
            torch.autocast(self._carrier.device.type, torch.bfloat16, enabled=self._autocast),
            watch or nullcontext(),
        ):
            return _named(self._module(self._carrier.to_device(batch, layout)), self.model)

    def _flushes_denormals(self) -> bool:
        """Whether every thread does: worker threads keep the setting that they started with."""
        with _settings(self.threads):
            tiny = torch.full((self.threads * 65536,), 1e-39)
            return not bool((tiny * 1.0).any())

    def _watched(self, *, compiled: bool) -> tuple[dict[str, Any], list[Kernel]]:
        """Return the outputs and the kernels of a trial batch."""
        # Inductor would compile one image apart from all other batch sizes. TorchScript loses its
        # message if it fails while it is watched, so the batch has run once before.
        batch = self._trial(images=2 if compiled else 1)
        if compiled:
            outputs: dict[str, Any] = {}
            return outputs, profiled_kernels(lambda: outputs.update(self._forward(batch)))
        watch = Watch()
        return self._forward(batch, watch), watch.kernels


class TorchBackend(ModelBackend):
    """PyTorch models by PyTorch."""

    name: ClassVar[str] = "torch"
    session = TorchSession

    @classmethod
    def probe(cls) -> Probe:
        """See `Backend.probe`: int8 runs where it can be compiled."""
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        devices = ("cpu", *(f"cuda:{index}" for index in range(count)))
        floats: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
        precisions = floats if why_not_int8() else PRECISIONS
        return Probe(True, str(torch.__version__), devices, precisions)

    @classmethod
    def open(cls, model: Path, options: SessionOptions) -> Session:
        """See `Backend.open`."""
        if options.precision == "int8" and (reason := why_not_int8()):
            raise UnavailableError(f"Backend 'torch' does not run int8 here: {reason}")
        if options.precision == "int8" and cuda_index(options.device) is not None:
            raise UnavailableError(
                f"Backend 'torch' runs int8 on the CPU only; on {options.device} it would be "
                "simulated in fp32. Choose --device cpu."
            )
        return super().open(model, options)


class Watch(TorchDispatchMode):  # type: ignore[misc]
    """Records every executed operator with the element types of its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[Kernel] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Record the operator and run it."""
        names = (str(arg.dtype) for arg in args if isinstance(arg, torch.Tensor))
        dtypes = tuple(name.removeprefix("torch.").removeprefix("q") for name in names)
        self.kernels.append(Kernel(func.overloadpacket.__name__, "torch", dtypes))
        return func(*args, **(kwargs or {}))


@contextmanager
def _settings(threads: int) -> Iterator[None]:
    """Set this session's threads and flush denormals; restore the caller's settings afterwards."""
    before = torch.get_num_threads()
    if before != threads:
        torch.set_num_threads(threads)
    flushed = not bool(np.float64(5e-324) * 1.0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)
        if before != threads:
            torch.set_num_threads(before)


def _check_stored(model: Path, loaded: Loaded, stored: Counter[str], precision: str) -> None:
    """Check that the file really holds the precision: a label alone changes nothing."""
    if loaded.quantised and precision != "int8":
        raise WrongPrecisionError(
            f"{model} holds int8 operators; {precision} would be a label only. Ask for --precision "
            "int8, or give the float model."
        )
    if precision == "int8" and not loaded.quantised:
        raise WrongPrecisionError(
            f"{model} holds {', '.join(stored)} operators; int8 would be a label only. Quantise "
            f"it: evalkit convert {model} --to int8 --backend torch."
        )
    allowed = STORED[precision]
    if loaded.form == "exported" and precision == "fp16":
        allowed = allowed[:1]
    if foreign := sorted(set(stored) - set(allowed)):
        raise WrongPrecisionError(
            f"{model} holds {', '.join(foreign)} parameters; {precision} would be a label only. "
            f"Save the model again in {allowed[0]}, or ask for the precision of its parameters."
        )


def _named(result: Any, model: Path) -> dict[str, Any]:
    """Name the outputs: by the keys of a dict, else output0, output1, ...; lists are flattened."""
    if isinstance(result, Mapping):
        return {str(name): value for name, value in result.items()}
    values = list(_flat(result))
    if not values or not all(isinstance(value, torch.Tensor) for value in values):
        raise InputError(f"{model} returns {type(result).__name__}. Export it to return tensors.")
    return {f"output{index}": value for index, value in enumerate(values)}


def _flat(result: Any) -> Iterator[Any]:
    if isinstance(result, tuple | list):
        for value in result:
            yield from _flat(value)
    else:
        yield result


def _output_info(name: str, value: Any, image: TensorInfo) -> TensorInfo:
    """Describe an output of the trial run; its sizes are open where the image's are."""
    fixed = all(isinstance(size, int) for size in image.shape[1:])
    sizes = (size if fixed or value.ndim == 2 else None for size in value.shape[1:])
    return TensorInfo(name, "float32", (*image.shape[:1], *sizes))


def _notes(loaded: Loaded, stored: Counter[str], built: str, ran: str) -> tuple[str, ...]:
    notes = []
    if built == "fp16" and "float32" in stored:
        notes.append("The parameters were stored in float32 and rounded to float16 when opened.")
    if loaded.quantised and loaded.form == "torchscript":
        notes.append("Legacy quantised TorchScript: PyTorch has withdrawn this form of int8.")
    if loaded.quantised and saturates():
        notes.append("This CPU has no VNNI: int8 products can saturate, which changes figures.")
    if not ran.startswith(built):
        notes.append(f"The network was built in {built}, but its products ran in {ran}.")
    return tuple(notes)
