"""ONNX Runtime: the CPU, and CUDA or TensorRT where its GPU package is installed.

It runs a graph at the precision that the graph was built in. What really ran is read from its own
profiler, after optimisation, on a warm-up batch; what the graph was built in is read from the
same profiler with optimisation off.

Denormal numbers are not flushed to zero. The runtime's setting for it would change the thread
that opens the process's first session, NumPy in it included, for good; and a later caller's thread,
which works beside the runtime's own, would not flush as they do.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from evalkit.backends.base import Backend, Probe, Ran, Session, SessionOptions, TensorInfo
from evalkit.backends.kernels import (
    Kernel,
    built_precision,
    count_arithmetic,
    describe_precision,
    read_onnxruntime_profile,
)
from evalkit.backends.onnx_files import check_external_data
from evalkit.backends.onnxruntime.cuda import (
    BoundSession,
    check_fell_back,
    check_provider,
    providers,
)
from evalkit.backends.onnxruntime.saturation import NOTE, cpu_saturates
from evalkit.backends.tensors import (
    check_batch,
    check_file,
    check_offered,
    cuda_device_count,
    cuda_index,
    first_line,
    float32_outputs,
    only_input,
    trial_shapes,
)
from evalkit.core.errors import InputError, WrongPrecisionError, install_command
from evalkit.core.machine import available_cores

PACKAGES = ("onnxruntime", "onnxruntime-gpu")
FATAL_ONLY = 4  # what fails comes as an exception, and is told by it
_NUMPY_NAMES = {"float": "float32", "double": "float64"}
_NEWER = "Export it with operators and an opset that this version knows, or install a newer one."
_REMEDIES = {
    "InvalidProtobuf": "It is no ONNX model, or is cut short: export or fetch it again.",
    "NotImplemented": _NEWER,
    "InvalidGraph": "Check it with onnx.checker.check_model, and export it again.",
    "NoSuchFile": "Put the external data of the model beside it.",
}


class OnnxRuntimeBackend(Backend):
    """ONNX models by ONNX Runtime."""

    name: ClassVar[str] = "onnxruntime"

    @classmethod
    def probe(cls) -> Probe:
        """See `Backend.probe`: both packages at once make it unavailable."""
        found = [name for name in PACKAGES if _installed(name)]
        if len(found) > 1:
            return Probe(
                available=False,
                reason="onnxruntime and onnxruntime-gpu are both installed; they overwrite each "
                "other's files.",
                remedy="Run: pip uninstall -y onnxruntime onnxruntime-gpu, then "
                f"{install_command('cpu')}; on a machine with an NVIDIA GPU, take gpu, not cpu.",
            )
        if not hasattr(ort, "InferenceSession"):
            return Probe(
                available=False,
                reason="The installed onnxruntime is incomplete.",
                remedy="Run: pip install --force-reinstall --no-deps "
                f"{found[0] if found else 'onnxruntime'}.",
            )
        devices = ["cpu"]
        if "CUDAExecutionProvider" in ort.get_available_providers():
            devices += [f"cuda:{index}" for index in range(cuda_device_count())]
        return Probe(True, ort.__version__, tuple(devices), ("fp32", "fp16", "int8"))

    @classmethod
    def open(cls, model: Path, options: SessionOptions) -> Session:
        """See `Backend.open`.

        Raises
        ------
        evalkit.core.errors.InputError
            Besides: the graph was not built in the precision asked for, or has several inputs.
        """
        check_offered(cls.name, cls.probe(), options.device, options.precision)
        check_provider(options)
        check_file(model)
        check_external_data(model, model.read_bytes())
        return OnnxRuntimeSession(model, options)


class OnnxRuntimeSession(Session):
    """One ONNX graph; see `Session`.

    Parameters
    ----------
    model : Path
        The ONNX file.
    options : SessionOptions
        Checked against the probe already.
    """

    def __init__(self, model: Path, options: SessionOptions) -> None:
        self.model = model
        self.threads = options.threads or available_cores()
        device = cuda_index(options.device)
        plain = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        # TensorRT would swallow the operators that tell.
        untouched = replace(options, provider=None)
        built = built_precision(_profiled(model, untouched, plain)[1])
        if built != options.precision:
            raise WrongPrecisionError(_mismatch(model, built, options.precision))
        full = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        session, kernels = _profiled(model, options, full)
        self._session: Any = session
        self._bound = None if device is None else BoundSession(session, "cuda", device)
        self.inputs = _infos(session.get_inputs())
        self.outputs = _infos(session.get_outputs())
        counts = count_arithmetic(kernels)
        fused = _fused_by_tensorrt(kernels)
        ran = (
            f"unknown ({built} graph built by TensorRT)"
            if fused
            else (describe_precision(counts, built))
        )
        self.ran = Ran(
            backend=OnnxRuntimeBackend.name,
            version=ort.__version__,
            device="cpu" if device is None else f"cuda:{device}",
            precision_requested=options.precision,
            precision_ran=ran,
            threads=self.threads,
            details={
                "providers": session.get_providers(),
                "kernels_by_provider": dict(Counter(kernel.provider for kernel in kernels)),
                "heavy_kernels_by_precision": dict(counts),
                "graph_optimization": "all",
                "inter_op_threads": 1,
                "denormals_as_zero": False,
                "thread_spinning": False,
                "built_precision": built,
            },
            notes=_notes(ran, built, kernels, device),
        )

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """See `Session.run`."""
        if self._session is None:
            raise InputError(f"The session of {self.model} is closed; open the model again.")
        (info,) = self.inputs
        given = check_batch(batch, info, self.model)
        try:
            if self._bound is not None:
                values = self._bound.run(info.name, given)
            else:
                values = self._session.run(None, {info.name: given})
        except Exception as error:
            raise InputError(
                f"{self.model}: ONNX Runtime cannot run a batch of shape {batch.shape}: "
                f"{first_line(error)}. Give the size that the model was exported for, or a "
                "smaller batch."
            ) from error
        return float32_outputs((output.name for output in self.outputs), values, self.model)

    def close(self) -> None:
        """See `Session.close`."""
        self._session = self._bound = None


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _profiled(model: Path, options: SessionOptions, level: Any) -> tuple[Any, list[Kernel]]:
    """Open a session; list the kernels of its warm-up run; its profiler is off again afterwards."""
    with _profile_folder() as folder:
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = options.threads or available_cores()
        settings.inter_op_num_threads = 1
        settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        settings.graph_optimization_level = level
        settings.log_severity_level = FATAL_ONLY
        # Threads that spin between operators take the cores that decoding needs.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.enable_profiling = True
        settings.profile_file_prefix = str(folder / "profile")
        session = _load(model, settings, providers(options))
        check_fell_back(options, session.get_providers())
        try:
            _warm_up(session, model, options.image)
        finally:
            profile = Path(session.end_profiling())
        return session, _read_profile(profile)


@contextmanager
def _profile_folder() -> Iterator[Path]:
    """Make a folder that is gone afterwards."""
    try:
        made = tempfile.TemporaryDirectory(prefix="evalkit-")
    except OSError as error:
        raise InputError(
            f"No temporary folder can be made ({error}). Free some space, or name another "
            "folder in the environment variable TMPDIR."
        ) from error
    with made as folder:
        yield Path(folder)


def _read_profile(file: Path) -> list[Kernel]:
    """Read what the runtime wrote; it does not tell when its disk is full."""
    try:
        return read_onnxruntime_profile(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(
            f"ONNX Runtime could not write its profile to the temporary folder {file.parent.parent}"
            ". Free some space there, or name another folder in the environment variable TMPDIR."
        ) from error


def _load(model: Path, settings: Any, providers: list[Any]) -> Any:
    try:
        return ort.InferenceSession(str(model), settings, providers=providers)
    except Exception as error:
        reason, remedy = _refusal(error)
        raise InputError(
            f"{model}: ONNX Runtime {ort.__version__} cannot load it: {reason}. {remedy}"
        ) from error


def _refusal(error: Exception) -> tuple[str, str]:
    """Word why a model does not load, without the runtime's own source lines, and what to do."""
    line = re.sub(
        r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:)?", "", first_line(error)
    )
    opset = re.search(r"Opset (\d+) is under development.* is till opset (\d+)", line)
    if opset:
        return (
            f"it needs opset {opset[1]}, and this version knows opsets up to {opset[2]}",
            _NEWER,
        )
    version = re.search(
        r"Unsupported model IR version: (\d+), max supported IR version: (\d+)", line
    )
    if version:
        return (
            f"it is of IR version {version[1]}, and this version knows IR versions up to "
            f"{version[2]}",
            _NEWER,
        )
    line = re.sub(r"^(Fatal error: |/\S+\.(cc|h):\d+ .*?\) )", "", line)
    if "No Op registered" in line or "is not a registered function/op" in line:
        return line, _NEWER
    return line, _REMEDIES.get(type(error).__name__, "Check the file and export it again.")


def _warm_up(session: Any, model: Path, image: tuple[int, int, int] | None) -> None:
    info = only_input(_infos(session.get_inputs()), model)
    failures = []
    for shape in trial_shapes(info, image):
        try:
            session.run(None, {info.name: np.zeros(shape, np.dtype(info.dtype))})
        except Exception as error:
            failures.append(f"{shape}: {first_line(error)}")
        else:
            return
    raise InputError(
        f"{model} loads but does not run; batches tried: {'; '.join(failures)}. Export it with "
        "the height and width that it takes."
    )


def _infos(values: Sequence[Any]) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(value.name, _numpy_name(value.type), tuple(value.shape)) for value in values
    )


def _numpy_name(kind: str) -> str:
    """NumPy's name of ``tensor(float)``; what is no tensor keeps the runtime's name."""
    element = kind.removeprefix("tensor(").removesuffix(")")
    return _NUMPY_NAMES.get(element, element)


def _mismatch(model: Path, built: str, requested: str) -> str:
    makes = (
        "the model that it was made from"
        if requested == "fp32"
        else f"what evalkit convert MODEL --to {requested} makes of an fp32 one"
    )
    return (
        f"{model} is a graph built in {built}, but {requested} was asked for, and ONNX Runtime "
        f"runs a graph as it was built. Ask for --precision {built}, or give {makes}."
    )


def _fused_by_tensorrt(kernels: list[Kernel]) -> bool:
    return any(kernel.provider == "TensorrtExecutionProvider" for kernel in kernels)


def _notes(ran: str, built: str, kernels: list[Kernel], device: int | None) -> tuple[str, ...]:
    notes = []
    if ran == "fp32 (fp16 weights)":
        notes.append(
            "The CPU has no fp16 kernels for this graph: it ran in fp32 with weights and some "
            "activations rounded to fp16, which measures rounding, not fp16 arithmetic."
        )
    elif _fused_by_tensorrt(kernels):
        notes.append(
            "TensorRT runs the graph as engines of its own, whose arithmetic ONNX Runtime does "
            "not tell (it may use TF32); the TensorRT backend does."
        )
    elif built not in ran.split(" ", 1)[0]:
        notes.append(f"The graph was built in {built}, but its products ran in {ran}.")
    if device is None and count_arithmetic(kernels).get("int8") and cpu_saturates():
        notes.append(NOTE)
    if device is not None and any(k.provider == "CPUExecutionProvider" for k in kernels):
        notes.append("Some nodes ran on the CPU beside CUDA: see kernels_by_provider.")
    return tuple(notes)
