"""ONNX Runtime: the CPU, and CUDA or TensorRT where its GPU package is installed.

It runs a graph at the precision that the graph was built in. What really ran is read from its own
profiler, after optimisation, on a warm-up batch; what the graph was built in is read from the
same profiler with optimisation off.

Denormal numbers are not flushed to zero. The runtime's setting for it would change the thread
that opens the process's first session, NumPy in it included, for good; and a later caller's thread,
which works beside the runtime's own, would not flush as they do.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import onnxruntime as ort
from numpy.typing import NDArray

from evalkit.backends.base import Probe, SessionOptions, TensorInfo
from evalkit.backends.kernels import (
    Kernel,
    built_precision,
    count_arithmetic,
    describe_precision,
    read_onnxruntime_profile,
)
from evalkit.backends.onnx_files import check_external_data
from evalkit.backends.onnxruntime import cuda
from evalkit.backends.onnxruntime.saturation import NOTE, cpu_saturates
from evalkit.backends.session import ModelBackend, ModelSession
from evalkit.backends.tensors import (
    cuda_device_count,
    cuda_index,
    explained,
    first_line,
    wrong_precision,
)
from evalkit.core.errors import InputError, install_command
from evalkit.core.machine import installed_version

PACKAGES = ("onnxruntime", "onnxruntime-gpu")
FATAL_ONLY = 4  # an error is raised, and need not be logged
_TEMPORARY = "Free some space, or name another folder in the environment variable TMPDIR."
_NUMPY_NAMES = {"float": "float32", "double": "float64"}
_NEWER = "Export it with operators and an opset that this version knows, or install a newer one."
_TOO_NEW = {
    r"Opset (\d+) is under development.* is till opset (\d+)": "opset",
    r"Unsupported model IR version: (\d+), max supported IR version: (\d+)": "IR version",
}
_REMEDIES = {
    "InvalidProtobuf": "It is no ONNX model, or is incomplete: export or fetch it again.",
    "NotImplemented": _NEWER,
    "InvalidGraph": "Check it with onnx.checker.check_model, and export it again.",
    "NoSuchFile": "Put the external data of the model beside it.",
}


class OnnxRuntimeSession(ModelSession):
    """One ONNX graph; see `ModelSession`.

    Raises
    ------
    evalkit.core.errors.InputError
        The graph was built in another precision, or has several inputs.
    """

    backend = "onnxruntime"
    runtime = "ONNX Runtime"
    _session: Any = None

    def __init__(self, model: Path, options: SessionOptions) -> None:
        super().__init__(model, options)
        cuda.check_provider(options)
        check_external_data(model, model.read_bytes())
        self._bound: cuda.BoundSession | None = None
        level = ort.GraphOptimizationLevel
        # TensorRT would fuse the operators that tell the precision.
        built = built_precision(
            self._profiled(replace(options, provider=None), level.ORT_DISABLE_ALL)
        )
        if built != options.precision:
            raise wrong_precision(model, built, options.precision, _alternative(options.precision))
        kernels = self._profiled(options, level.ORT_ENABLE_ALL)
        device = cuda_index(options.device)
        if device is not None:
            self._bound = cuda.BoundSession(self._session, "cuda", device)
        counts = count_arithmetic(kernels)
        ran = describe_precision(counts, built)
        if _fused_by_tensorrt(kernels):
            ran = f"unknown ({built} graph built by TensorRT)"
        self.ran = self._record(
            ort.__version__,
            ran,
            {
                "providers": self._session.get_providers(),
                "kernels_by_provider": dict(Counter(kernel.provider for kernel in kernels)),
                "heavy_kernels_by_precision": dict(counts),
                "graph_optimization": "all",
                "inter_op_threads": 1,
                "denormals_as_zero": False,
                "thread_spinning": False,
                "built_precision": built,
            },
            _notes(ran, built, kernels, device),
            device="cpu" if device is None else f"cuda:{device}",
            threads=self.threads,
        )

    def _compute(self, batch: NDArray[Any]) -> Iterable[Any]:
        name = self.inputs[0].name
        if self._bound is not None:
            return self._bound.run(name, batch)
        values: list[Any] = self._session.run(None, {name: batch})
        return values

    def _release(self) -> None:
        self._session = self._bound = None

    def _profiled(self, options: SessionOptions, level: Any) -> list[Kernel]:
        """Open the graph; list the kernels of a trial run. The profiler is off afterwards."""
        self._session = None  # two at once would need twice the memory
        with _profile_folder() as folder:
            settings = ort.SessionOptions()
            settings.intra_op_num_threads = self.threads
            settings.inter_op_num_threads = 1
            settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
            settings.graph_optimization_level = level
            settings.log_severity_level = FATAL_ONLY
            # Threads that spin between operators take the cores that decoding needs.
            settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
            settings.enable_profiling = True
            settings.profile_file_prefix = str(folder / "profile")
            self._session = _load(self.model, settings, cuda.providers(options))
            cuda.check_fell_back(options, self._session.get_providers())
            self.inputs = _infos(self._session.get_inputs())
            self.outputs = _infos(self._session.get_outputs())
            try:
                self._trial()
            finally:
                profile = Path(self._session.end_profiling())
            return _read_profile(profile)


class OnnxRuntimeBackend(ModelBackend):
    """ONNX models by ONNX Runtime."""

    name: ClassVar[str] = "onnxruntime"
    session = OnnxRuntimeSession

    @classmethod
    def probe(cls) -> Probe:
        """See `Backend.probe`: both packages at once make it unavailable."""
        packages = [name for name in PACKAGES if installed_version(name)]
        if len(packages) > 1:
            return Probe(
                available=False,
                reason="onnxruntime and onnxruntime-gpu are both installed; they overwrite each "
                "other's files.",
                remedy="Run: pip uninstall -y onnxruntime onnxruntime-gpu, then "
                f"{install_command('cpu')}; on a machine with an NVIDIA GPU, take gpu, not cpu.",
            )
        if not hasattr(ort, "InferenceSession"):
            package = packages[0] if packages else "onnxruntime"
            return Probe(
                available=False,
                reason="The installed onnxruntime is incomplete.",
                remedy=f"Run: pip install --force-reinstall --no-deps {package}.",
            )
        devices = ["cpu"]
        if "CUDAExecutionProvider" in ort.get_available_providers():
            devices += [f"cuda:{index}" for index in range(cuda_device_count())]
        return Probe(True, ort.__version__, tuple(devices), ("fp32", "fp16", "int8"))


@contextmanager
def _profile_folder() -> Iterator[Path]:
    """Make a temporary folder."""
    with explained("Cannot make a temporary folder", _TEMPORARY, OSError):
        temporary = tempfile.TemporaryDirectory(prefix="evalkit-")
    with temporary as folder:
        yield Path(folder)


def _read_profile(file: Path) -> list[Kernel]:
    """Read the runtime's profile; the runtime does not raise when its disk is full."""
    action = f"ONNX Runtime could not write its profile to {file.parent.parent}"
    with explained(action, _TEMPORARY, (OSError, ValueError)):
        return read_onnxruntime_profile(json.loads(file.read_text(encoding="utf-8")))


def _load(model: Path, settings: Any, providers: list[Any]) -> Any:
    try:
        return ort.InferenceSession(str(model), settings, providers=providers)
    except Exception as error:
        reason, remedy = _refusal(error)
        raise InputError(
            f"{model}: ONNX Runtime {ort.__version__} cannot load it: {reason}. {remedy}"
        ) from error


def _refusal(error: Exception) -> tuple[str, str]:
    """Return why a model does not load, without the runtime's source lines, and what to do."""
    line = re.sub(
        r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:)?", "", first_line(error)
    )
    for pattern, kind in _TOO_NEW.items():
        if match := re.search(pattern, line):
            reason = f"it is of {kind} {match[1]}, and this version knows {kind}s up to {match[2]}"
            return reason, _NEWER
    line = re.sub(r"^(Fatal error: |/\S+\.(cc|h):\d+ .*?\) )", "", line)
    if "No Op registered" in line or "is not a registered function/op" in line:
        return line, _NEWER
    return line, _REMEDIES.get(type(error).__name__, "Check the file and export it again.")


def _infos(values: Sequence[Any]) -> tuple[TensorInfo, ...]:
    """Describe inputs or outputs; other kinds than ``tensor(...)`` keep the runtime's name."""
    infos = []
    for value in values:
        element = value.type.removeprefix("tensor(").removesuffix(")")
        dtype = _NUMPY_NAMES.get(element, element)
        infos.append(TensorInfo(value.name, dtype, tuple(value.shape)))
    return tuple(infos)


def _alternative(requested: str) -> str:
    """Name the graph that runs at a precision: ONNX Runtime runs a graph as it was built."""
    if requested == "fp32":
        return "the model that it was made from"
    return f"what evalkit convert MODEL --to {requested} makes of an fp32 one"


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
            "TensorRT runs the graph as engines of its own. ONNX Runtime does not tell their "
            "arithmetic (it may be TF32); the TensorRT backend does."
        )
    elif built not in ran.split(" ", 1)[0]:
        notes.append(f"The graph was built in {built}, but its products ran in {ran}.")
    if device is None and count_arithmetic(kernels).get("int8") and cpu_saturates():
        notes.append(NOTE)
    if device is not None and any(k.provider == "CPUExecutionProvider" for k in kernels):
        notes.append("Some nodes ran on the CPU beside CUDA: see kernels_by_provider.")
    return tuple(notes)
