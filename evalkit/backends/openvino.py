"""OpenVINO: its own IR (``.xml`` with ``.bin``) and ONNX, on the CPU and Intel's GPUs and NPUs.

By default it runs an fp32 graph in bfloat16 on CPUs that have it. An fp16 hint on a CPU without
fp16 arithmetic silently becomes bfloat16. So the hint is always set and read back. What ran is read
from the executed graph after a trial run: the kernel of each operator.

Only the CPU has been tested; the other devices are offered as OpenVINO lists them.

OpenVINO reports each import to Google Analytics if its telemetry package is installed and the user
has not opted out. Here that package is never loaded.
"""

# ruff: noqa: E402 - the telemetry is disabled before OpenVINO is imported

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, cast

sys.modules.setdefault("openvino_telemetry", cast("Any", None))

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino.frontend import FrontEndManager

from evalkit.backends.base import Precision, Probe, SessionOptions, TensorInfo
from evalkit.backends.kernels import Kernel, count_arithmetic, describe_precision
from evalkit.backends.onnx_files import check_external_data, check_versions
from evalkit.backends.session import ModelBackend, ModelSession
from evalkit.backends.tensors import explained, wrong_precision
from evalkit.core.errors import InputError, UnavailableError

# The newest opset whose definitions are built into the ONNX front end of OpenVINO 2026.4 (the
# symbols OpSet_Onnx_verN of its library). The front end falls back silently: it takes its older
# form of an operator for the newer. The file format's version says little of the operators; 14 is
# the newest that the package onnx writes.
NEWEST_OPSET, NEWEST_IR = 27, 14
FRONT_ENDS = {".xml": "ir", ".onnx": "onnx"}
HEAVY_OPS = frozenset(
    {"Convolution", "Deconvolution", "DeformableConvolution", "FullyConnected", "MatMul", "Gemm"}
    | {"RNNCell", "RNNSeq", "LSTMCell", "LSTMSequence", "GRUCell", "GRUSequence"}
    | {"ScaledDotProductAttention", "QKVProjection", "LLMMLP"}
)
_HINTS: dict[Precision, str] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
_CAPABILITIES: dict[Precision, str] = {"bf16": "BF16", "fp16": "FP16"}
_DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "f64": "float64",
    "i8": "int8",
    "u8": "uint8",
}
_NO_ARITHMETIC = frozenset({"Const", "Input", "Output", "Reorder", "Convert"})
_LOW_WEIGHTS: dict[str, Precision] = {
    **{"i8": "int8", "u8": "int8", "i4": "int8", "u4": "int8"},
    **{"f16": "fp16", "bf16": "bf16"},
}


def cause(error: BaseException) -> str:
    """Return the line of OpenVINO's message that names the cause: unknown operators, else the last.

    The lines before the last name OpenVINO's own source files. Where an operator is unknown, the
    last line names one of its neighbours, which could not be converted either.
    """
    lines = [line.strip(" -\t") for line in str(error).splitlines() if line.strip()]
    unknown = (line for line in lines if line.startswith("No conversion rule found"))
    line = next(unknown, lines[-1] if lines else type(error).__name__)
    return line.rstrip(".!")


class OpenVinoSession(ModelSession):
    """One compiled graph; see `ModelSession`.

    Raises
    ------
    evalkit.core.errors.InputError
        The graph was built in another precision.
    """

    backend = "openvino"
    runtime = "OpenVINO"
    failures = (RuntimeError,)
    cause = staticmethod(cause)

    def __init__(self, model: Path, options: SessionOptions) -> None:
        super().__init__(model, options)
        device = options.device.upper()
        graph = read_graph(model)
        built = built_precision(graph)
        hint = _hint(model, built, options.precision, device)
        compiled = _compile(model, graph, device, _settings(device, hint, self.threads))
        actual = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if actual != hint:
            raise UnavailableError(
                f"{model}: OpenVINO was asked to run in {hint} on {device}, but chose {actual}. "
                "Ask for another --precision."
            )
        self._request: Any = compiled.create_infer_request()
        self.inputs = tuple(_info(port, f"input{i}") for i, port in enumerate(graph.inputs))
        self.outputs = tuple(_info(port, f"output{i}") for i, port in enumerate(graph.outputs))
        self._trial()
        counts = count_arithmetic(_executed(compiled.get_runtime_model()), HEAVY_OPS)
        if built != options.precision and options.precision not in counts:
            raise InputError(
                f"{model}: asked for {options.precision}, OpenVINO ran it in "
                f"{describe_precision(counts, built)}. Ask for --precision {built}."
            )
        ran = describe_precision(counts, options.precision)
        on_cpu = device == "CPU"
        self.ran = self._record(
            _version(),
            ran,
            {
                "execution_devices": list(compiled.get_property("EXECUTION_DEVICES")),
                "inference_precision_hint": actual,
                "heavy_kernels_by_precision": dict(counts),
                "built_precision": built,
                "capabilities": sorted(_capabilities(device)),
                "streams": 1,
                "denormals_as_zero": False,
                "dynamic_quantization": False,
            },
            _notes(ran, options.precision, counts),
            device=options.device,
            threads=compiled.get_property("INFERENCE_NUM_THREADS") if on_cpu else None,
        )

    def _compute(self, batch: NDArray[Any]) -> Iterable[Any]:
        # The batch is only read; outputs are copied out of the request's own memory.
        values: Iterable[Any] = self._request.infer({0: batch}, share_inputs=True).to_tuple()
        return values

    def _release(self) -> None:
        self._request = None


class OpenVinoBackend(ModelBackend):
    """OpenVINO IR and ONNX models by OpenVINO."""

    name: ClassVar[str] = "openvino"
    session = OpenVinoSession

    @classmethod
    def probe(cls) -> Probe:
        """See `Backend.probe`."""
        try:
            devices = tuple(name.lower() for name in _core().available_devices)
            capable = _capabilities("CPU")
        except RuntimeError as error:
            return Probe(
                available=False,
                version=_version(),
                reason=f"OpenVINO finds no device: {cause(error)}.",
                remedy="Run: pip install --force-reinstall openvino.",
            )
        low: tuple[Precision, ...] = ("bf16",) if "BF16" in capable else ()
        return Probe(True, _version(), devices, ("fp32", "fp16", *low, "int8"))


@cache
def _core() -> Any:
    return ov.Core()


def _version() -> str:
    return str(ov.__version__).split("-", 1)[0]


def _capabilities(device: str) -> frozenset[str]:
    return frozenset(_core().get_property(device, "OPTIMIZATION_CAPABILITIES"))


def read_graph(model: Path) -> Any:
    """Read a model by the front end of its suffix; OpenVINO would try others too.

    Returns
    -------
    openvino.Model

    Raises
    ------
    evalkit.core.errors.InputError
        The file is of another kind, damaged or too new, lacks its weights, keeps them outside its
        folder, or uses unknown operators.
    """
    if model.suffix.lower() not in FRONT_ENDS:
        raise InputError(
            f"{model}: OpenVINO reads {' and '.join(FRONT_ENDS)} files here. Give the model as one "
            "of them."
        )
    if model.suffix.lower() == ".onnx":
        content = model.read_bytes()
        check_external_data(model, content)
        check_versions(model, content, f"OpenVINO {_version()}", opset=NEWEST_OPSET, ir=NEWEST_IR)
    front_end = FrontEndManager().load_by_framework(FRONT_ENDS[model.suffix.lower()])
    remedy = (
        "It is no such model, is incomplete, or uses operators that this version does not know: "
        "convert or fetch it again."
    )
    weights = model.with_suffix(".bin")
    if model.suffix.lower() == ".xml" and not weights.is_file():
        remedy = f"Its weights {weights.name} are missing: put them beside it."
    with explained(f"{model}: OpenVINO {_version()} cannot read it", remedy, cause=cause):
        return front_end.convert(front_end.load(str(model)))


def built_precision(graph: Any) -> Precision:
    """Return the precision that a graph was built in: int8 if quantised, else that of its weights.

    Constants of one dimension or none do not count: they are biases, axes and scales.

    Parameters
    ----------
    graph : openvino.Model
    """
    values: Counter[Precision] = Counter()
    for node in graph.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "FakeQuantize":
            return "int8"
        if kind == "Constant":
            shape = node.get_output_shape(0)
            low = _LOW_WEIGHTS.get(node.get_element_type().get_type_name())
            if low is not None and len(shape) > 1:
                values[low] += int(np.prod(shape))
    return max(values, key=lambda name: values[name]) if values else "fp32"


def _hint(model: Path, built: Precision, precision: Precision, device: str) -> str:
    """Choose the arithmetic of operators that are not quantised.

    A precision that would be a label only is an error.
    """
    capability = _CAPABILITIES.get(precision)
    capable = capability is None or capability in _capabilities(device)
    if built == precision:
        return _HINTS[precision if capable else "fp32"]
    if built != "fp32" or precision == "int8":
        other = f"a model of {precision} (evalkit convert makes it of the fp32 model)"
        raise wrong_precision(model, built, precision, other)
    if not capable:
        raise UnavailableError(
            f"{model}: {device} has no {precision} arithmetic, and the graph has fp32 weights, so "
            f"{precision} would be a label only. Ask for --precision fp32, or use another machine."
        )
    return _HINTS[precision]


def _settings(device: str, hint: str, threads: int) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    if device == "CPU":
        settings |= {
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # threads that decode images need the cores too
            "CPU_DENORMALS_OPTIMIZATION": False,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # it would quantise activations of fp32 products
        }
    return settings


def _compile(model: Path, graph: Any, device: str, settings: dict[str, Any]) -> Any:
    action = f"{model}: OpenVINO {_version()} cannot compile it for {device}"
    remedy = "Export it with operators that this version knows, or choose another backend."
    with explained(action, remedy, RuntimeError, cause):
        return _core().compile_model(graph, device, settings)


def _executed(graph: Any) -> list[Kernel]:
    """List the operators of an executed graph that compute.

    The element type is that of the operator's first input, by which its kernel is named
    (``brgconv_avx512_f32``): the ``runtimePrecision`` of a convolution with fp16 weights is f16,
    though its kernel multiplies in f32.
    """
    kernels = []
    for node in graph.get_ordered_ops():
        facts = {name: str(value.astype(str)) for name, value in node.get_rt_info().items()}
        op = facts.get("layerType", "")
        if op not in _NO_ARITHMETIC:
            of_kernel = facts.get("primitiveType", "").rpartition("_")[2].lower()
            dtype = _DTYPES.get(of_kernel) or _DTYPES.get(facts.get("runtimePrecision", ""), "")
            kernels.append(Kernel(op, "", (dtype,)))
    return kernels


def _info(port: Any, default: str) -> TensorInfo:
    shape = tuple(size.get_length() if size.is_static else None for size in port.partial_shape)
    try:
        dtype = np.dtype(port.element_type.to_dtype()).name
    except (RuntimeError, TypeError, KeyError):
        dtype = str(port.element_type.get_type_name())
    return TensorInfo(_name(port, default), dtype, shape)


def _name(port: Any, default: str) -> str:
    """Return the name that a tensor shares with its node, else the first in alphabetical order."""
    names: Sequence[str] = sorted(port.get_names())
    own = port.get_node().get_friendly_name().partition("/sink_port_")[0]
    return own if own in names else next(iter(names), default)


def _notes(ran: str, precision: str, counts: Counter[str]) -> tuple[str, ...]:
    if precision in counts or not counts:
        return ()
    if precision == "fp16":
        return (
            f"This device has no fp16 arithmetic: it ran in {ran.partition(' ')[0]} with weights "
            "rounded to fp16, which measures rounding, not fp16 arithmetic.",
        )
    return (f"The graph was built in {precision}, but its products ran in {ran}.",)
