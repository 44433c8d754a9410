"""PyTorch: TorchScript, exported programs, and state dicts of registered architectures.

What really ran is read from the operators of a warm-up run, below autocast, with the element
types that they were given. No pickled code of a file is ever executed.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from evalkit.backends.architectures import ARCHITECTURES
from evalkit.backends.base import Backend, Probe, Ran, Session, SessionOptions, TensorInfo
from evalkit.backends.kernels import Kernel, count_arithmetic, describe_precision
from evalkit.backends.tensors import (
    check_batch,
    check_file,
    check_offered,
    cuda_index,
    first_line,
    float32_outputs,
    trial_shapes,
)
from evalkit.backends.torch_files import file_kind, safe_exported_program
from evalkit.environment import available_cores
from evalkit.errors import InputError

HEAVY_OPS = frozenset(
    {"_convolution", "convolution", "conv1d", "conv2d", "conv3d", "linear", "addmm", "mm", "bmm"}
    | {"matmul", "baddbmm", "mkldnn_convolution", "cudnn_convolution", "addmv", "mv"}
    | {"scaled_dot_product_attention"}
)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.float32}
IMAGES = TensorInfo("input0", "float32", ("n", None, None, None))


class TorchBackend(Backend):
    """PyTorch models by PyTorch."""

    name: ClassVar[str] = "torch"

    @classmethod
    def probe(cls) -> Probe:
        """See `Backend.probe`."""
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        devices = ("cpu", *(f"cuda:{index}" for index in range(count)))
        return Probe(True, str(torch.__version__), devices, ("fp32", "fp16", "bf16"))

    @classmethod
    def open(cls, model: Path, options: SessionOptions) -> Session:
        """See `Backend.open`.

        Raises
        ------
        evalkit.errors.InputError
            Besides: the weights are not those of the architecture, or the file holds a precision
            other than that asked for.
        """
        check_offered(cls.name, cls.probe(), options.device, options.precision)
        check_file(model)
        return TorchSession(model, options)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A network from a file, on the CPU, as it was stored."""

    module: torch.nn.Module
    form: str
    input: TensorInfo


class TorchSession(Session):
    """One PyTorch network; see `Session`.

    Parameters
    ----------
    model : Path
        The file.
    options : SessionOptions
        Checked against the probe already.
    """

    def __init__(self, model: Path, options: SessionOptions) -> None:
        self.model = model
        self.threads = options.threads or available_cores()
        index = cuda_index(options.device)
        self._device = torch.device("cpu" if index is None else f"cuda:{index}")
        self._autocast = options.precision == "bf16"
        loaded = _load(model, options.architecture)
        stored = parameter_dtypes(loaded.module)
        _check_stored(model, loaded.form, stored, options.precision)
        dtype = DTYPES[options.precision]
        # An exported program is fixed in its layout as in its types.
        self._format = torch.contiguous_format if loaded.form == "exported" else torch.channels_last
        module = loaded.module
        if loaded.form != "exported":
            module = module.to(dtype=dtype, memory_format=self._format)
        self._module: torch.nn.Module | None = module.to(device=self._device)
        self.inputs = (
            TensorInfo(loaded.input.name, str(dtype).removeprefix("torch."), loaded.input.shape),
        )
        outputs, kernels = self._warm_up(options.image)
        self.outputs = tuple(_output_info(k, v, self.inputs[0]) for k, v in outputs.items())
        counts = count_arithmetic(kernels, HEAVY_OPS)
        built = "fp32" if self._autocast else options.precision
        ran = describe_precision(counts, options.precision)
        self.ran = Ran(
            backend=TorchBackend.name,
            version=str(torch.__version__),
            device=str(self._device),
            precision_requested=options.precision,
            precision_ran=ran,
            threads=self.threads,
            details={
                "form": loaded.form,
                "architecture": options.architecture if loaded.form == "weights" else None,
                "stored_dtypes": dict(stored),
                "parameter_dtypes": dict(parameter_dtypes(module)),
                "autocast": "bfloat16" if self._autocast else None,
                "heavy_kernels_by_precision": dict(counts),
                "memory_format": str(self._format).removeprefix("torch."),
                "flush_denormal": self._flushes_denormals(),
                "tf32": False,
                "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            },
            notes=_notes(stored, built),
        )

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """See `Session.run`."""
        (info,) = self.inputs
        outputs = self._forward(check_batch(batch, info, self.model))
        values = [_owned(value) for value in outputs.values()]
        return float32_outputs(outputs, values, self.model)

    def close(self) -> None:
        """See `Session.close`."""
        self._module = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _forward(
        self, batch: NDArray[Any], watch: AbstractContextManager[Any] | None = None
    ) -> dict[str, Any]:
        if self._module is None:
            raise InputError(f"The session of {self.model} is closed; open the model again.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # read-only arrays are only read
            tensor = torch.from_numpy(batch)
        layout = self._format if tensor.ndim == 4 else torch.contiguous_format
        tensor = tensor.to(self._device).contiguous(memory_format=layout)
        try:
            with (
                _settings(self.threads),
                torch.inference_mode(),
                torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast),
                watch or nullcontext(),
            ):
                return _named(self._module(tensor), self.model)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise InputError(
                f"{self.model}: PyTorch cannot run a batch of shape {batch.shape}: "
                f"{_cause(error)}. Give the size that the model was made for, or a smaller batch."
            ) from error

    def _flushes_denormals(self) -> bool:
        """Whether every thread does: worker threads keep the setting that they were born with."""
        with _settings(self.threads):
            tiny = torch.full((self.threads * 65536,), 1e-39)
            return not bool((tiny * 1.0).any())

    def _warm_up(self, image: tuple[int, int, int] | None) -> tuple[dict[str, Any], list[Kernel]]:
        failures = []
        for shape in trial_shapes(self.inputs[0], image):
            batch = np.zeros(shape, self.inputs[0].dtype)
            try:
                self._forward(batch)  # unwatched first: TorchScript loses its message if watched
            except InputError as error:
                failures.append(f"{shape}: {_cause(error.__cause__ or error)}")
            else:
                watch = Watch()
                return self._forward(batch, watch), watch.kernels
        raise InputError(
            f"{self.model} loads but does not run; batches tried: {'; '.join(failures)}. Give "
            "the image size that the model was made for."
        )


class Watch(TorchDispatchMode):  # type: ignore[misc]
    """Notes every operator that is executed, with the element types of its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[Kernel] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Note the operator and run it."""
        names = (str(arg.dtype) for arg in args if isinstance(arg, torch.Tensor))
        dtypes = tuple(name.removeprefix("torch.") for name in names)
        self.kernels.append(Kernel(func.overloadpacket.__name__, "torch", dtypes))
        return func(*args, **(kwargs or {}))


def parameter_dtypes(module: torch.nn.Module) -> Counter[str]:
    """Count the parameters and buffers on real numbers by element type."""
    tensors = (*module.parameters(), *module.buffers())
    return Counter(str(t.dtype).removeprefix("torch.") for t in tensors if t.is_floating_point())


@contextmanager
def _settings(threads: int) -> Iterator[None]:
    """Threads, denormals and TF32 as this session needs them; the caller's come back after."""
    held = torch.get_num_threads()
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    if held != threads:
        torch.set_num_threads(threads)
    flushed = not bool(np.float64(5e-324) * 1.0)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32
        if held != threads:
            torch.set_num_threads(held)


def _load(model: Path, architecture: str | None) -> Loaded:
    kind = file_kind(model)
    try:
        if kind == "torchscript":
            return Loaded(torch.jit.load(model, map_location="cpu").eval(), kind, IMAGES)
        if kind == "exported":
            return _load_exported(model)
        return _load_weights(model, architecture)
    except InputError:
        raise
    except Exception as error:
        if blocked := re.search(r"GLOBAL (\S+)", str(error)):
            raise InputError(
                f"{model} is a pickle that names {blocked[1]}; code in a file is never run. Save "
                "model.state_dict(), TorchScript or an exported program instead."
            ) from error
        # PyTorch's own message on a foreign file advises to unpickle it without protection.
        cause = "" if isinstance(error, UnpicklingError) else f": {_cause(error)}"
        raise InputError(
            f"{model}: PyTorch {torch.__version__} cannot load it{cause}. It is no PyTorch model, "
            "or is cut short: save or fetch it again."
        ) from error


def _load_exported(model: Path) -> Loaded:
    program = torch.export.load(safe_exported_program(model))
    names = program.graph_signature.user_inputs
    if len(names) != 1:
        raise InputError(f"{model} has {len(names)} inputs; one image is expected.")
    (node,) = (n for n in program.graph.nodes if n.op == "placeholder" and n.name == names[0])
    sizes = node.meta["val"].shape
    shape = tuple(size if isinstance(size, int) else str(size) for size in sizes)
    return Loaded(program.module(), "exported", TensorInfo(str(names[0]), "float32", shape))


def _load_weights(model: Path, architecture: str | None) -> Loaded:
    stored = torch.load(model, map_location="cpu", weights_only=True)
    weights = unwrap(stored)
    if weights is None:
        raise InputError(f"{model} holds no state dict (names to tensors). Save one.")
    if architecture is None:
        raise InputError(
            f"{model} holds weights alone. Name their network: 'architecture' in the model's "
            f"YAML; known: {', '.join(ARCHITECTURES)}."
        )
    built = ARCHITECTURES.get(architecture)
    try:
        module = built.build(weights)
    except (KeyError, ValueError) as error:
        raise InputError(_misfit(model, architecture, [f"missing {error}"])) from error
    _check_keys(model, architecture, module.state_dict(), weights)
    dtype = next((t.dtype for t in weights.values() if t.is_floating_point()), torch.float32)
    module.to(dtype).load_state_dict(weights, strict=False)
    shape = ("n", *built.input_shape)
    return Loaded(module.eval(), "weights", TensorInfo("input0", "float32", shape))


def unwrap(stored: Any) -> dict[str, torch.Tensor] | None:
    """Find the state dict in what a training script saved; None where there is none.

    The wrappers ``state_dict``, ``model`` and ``module.`` before every name are taken off.
    """
    for wrapper in ("state_dict", "model"):
        if isinstance(stored, Mapping) and isinstance(stored.get(wrapper), Mapping):
            stored = stored[wrapper]
    if not isinstance(stored, Mapping) or not stored:
        return None
    if not all(isinstance(value, torch.Tensor) for value in stored.values()):
        return None
    return {str(name).removeprefix("module."): value for name, value in stored.items()}


def _check_keys(
    model: Path,
    architecture: str,
    wanted: Mapping[str, torch.Tensor],
    given: Mapping[str, torch.Tensor],
) -> None:
    """Refuse weights of another network; counters of batches seen in training may be absent."""
    missing = (n for n in wanted if n not in given and not n.endswith("num_batches_tracked"))
    faults = [f"missing {name}" for name in missing]
    faults += [f"unknown {name}" for name in given if name not in wanted]
    faults += [
        f"{name} is {tuple(value.shape)}, not {tuple(wanted[name].shape)}"
        for name, value in given.items()
        if name in wanted and value.shape != wanted[name].shape
    ]
    if faults:
        raise InputError(_misfit(model, architecture, faults))


def _misfit(model: Path, architecture: str, faults: list[str]) -> str:
    more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
    return (
        f"The weights in {model} are not those of {architecture}: {'; '.join(faults[:5])}{more}. "
        f"Name the right architecture; known: {', '.join(ARCHITECTURES)}."
    )


def _check_stored(model: Path, form: str, stored: Counter[str], precision: str) -> None:
    """Refuse to relabel: what was stored low stays low, an exported program stays as it is."""
    wanted = "float16" if precision == "fp16" else "float32"
    foreign = sorted(set(stored) - {wanted})
    widened = [name for name in foreign if name != "float32"]
    if foreign and (form == "exported" or (widened and precision != "fp16")):
        raise InputError(
            f"{model} holds {', '.join(foreign)} parameters; {precision} would be a label only. "
            f"Save the model again in {wanted}, or ask for the precision that it holds."
        )


def _named(result: Any, model: Path) -> dict[str, Any]:
    """Name the outputs: those of a dict, else output0, output1, ... in order, lists flattened."""
    if isinstance(result, Mapping):
        return {str(name): value for name, value in result.items()}
    values = list(_flat(result))
    if not values or not all(isinstance(value, torch.Tensor) for value in values):
        raise InputError(f"{model} returns {type(result).__name__}; return tensors.")
    return {f"output{index}": value for index, value in enumerate(values)}


def _flat(result: Any) -> Iterator[Any]:
    if isinstance(result, tuple | list):
        for value in result:
            yield from _flat(value)
    else:
        yield result


def _owned(value: Any) -> Any:
    """Copy to a NumPy array that shares nothing with the network."""
    if not isinstance(value, torch.Tensor):
        return value
    on_cpu = value.detach().to(device="cpu", dtype=torch.float32)
    return np.array(on_cpu.numpy(), order="C")


def _output_info(name: str, value: Any, given: TensorInfo) -> TensorInfo:
    """Name and shape as far as the warm-up run can tell: sizes follow the image's where open."""
    fixed = all(isinstance(size, int) for size in given.shape[1:])
    first: tuple[int | str | None, ...] = given.shape[:1]
    rest = tuple(size if fixed or value.ndim == 2 else None for size in value.shape[1:])
    return TensorInfo(name, "float32", first + rest)


def _cause(error: BaseException) -> str:
    """Say the line of a message that tells most: TorchScript puts its own call stack first."""
    told = re.findall(r"^\w*(?:Error|Exception): (.*\S)", str(error), re.MULTILINE)
    return told[-1].rstrip(".") if told else first_line(error)


def _notes(stored: Counter[str], built: str) -> tuple[str, ...]:
    if built == "fp16" and "float32" in stored:
        return ("The parameters were stored in float32 and rounded to float16 when opened.",)
    return ()
