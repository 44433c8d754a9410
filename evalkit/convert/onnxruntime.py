"""ONNX Runtime: fp16 by onnxconverter-common, static int8 by its own quantisation tools.

int8 is written as QDQ (QuantizeLinear and DequantizeLinear around float operators). OpenVINO, TVM
and TensorRT read this form too. It is signed and symmetric by default, which all of them support.

Defects of the toolchain, and what this module does about them:

- The entropy calibrator makes as many histogram bins as quantised ones, so that it never cuts
  anything: it is MinMax in disguise. Here it gets `HISTOGRAM_BINS`.
- The histogram calibrators keep every activation of every batch until the end: several GB. Here
  they get `CHUNK` batches at a time.
- It writes per-channel scales into graphs of an opset that has none; these then do not load. Here
  older graphs are converted to `PER_CHANNEL_OPSET`.
- The fp16 converter cuts weights beyond 10,000, though fp16 reaches 65,504. Here it gets fp16's
  limits.
- The CPU has no int8 kernel for PRelu, sigmoids and the like: quantising their inputs and weights
  costs accuracy and time. Here only `QUANTISED` operators are quantised.
"""

from __future__ import annotations

import itertools
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime import quantization as ort_quantization
from onnxruntime.quantization.calibrate import create_calibrator, save_tensors_data
from onnxruntime.quantization.shape_inference import quant_pre_process

from evalkit.backends.base import Precision
from evalkit.convert.base import Batches, Build, Built, CalibratesOnce, ConvertSettings, Method
from evalkit.convert.toolchain import check_range, optional, quiet, required, versions
from evalkit.core.errors import UnavailableError

HISTOGRAM_BINS = 2048
CHUNK = 4
PER_CHANNEL_OPSET = 13  # the first whose DequantizeLinear has a scale for each channel
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTISED = (
    *LAYERS,
    *("Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Resize"),
    *("Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze"),
)
SYMMETRIC_NOTE = (
    "OpenVINO, TVM and TensorRT read symmetric int8 too. With it, ONNX Runtime on x86 leaves "
    "convolutions at residual additions in fp32; --no-symmetric runs them in int8, often faster "
    "and closer to fp32."
)
_HALF = np.finfo(np.float16)
_METHODS: dict[Method, Any] = {
    "minmax": ort_quantization.CalibrationMethod.MinMax,
    "entropy": ort_quantization.CalibrationMethod.Entropy,
    "percentile": ort_quantization.CalibrationMethod.Percentile,
}


class OnnxRuntimeConverter(CalibratesOnce):
    """ONNX to ONNX."""

    name: ClassVar[str] = "onnxruntime"
    targets: ClassVar[tuple[Precision, ...]] = ("fp16", "int8")
    refusals: ClassVar[dict[Precision, str]] = {
        "bf16": "ONNX Runtime's CPU provider has no bf16 convolution, so a bf16 graph does not "
        "load. Build fp16 or int8, or build bf16 with --backend openvino or torch.",
    }
    suffix: ClassVar[str] = ".onnx"

    @classmethod
    def layers(cls, source: Path, settings: ConvertSettings) -> tuple[str, ...]:
        """See `Converter.layers`: for int8, the names after pre-processing."""
        with _folder() as folder:
            read = _preprocessed if settings.precision == "int8" else _with_names
            graph = onnx.load(read(source, folder), load_external_data=False).graph
            return tuple(node.name for node in graph.node if node.op_type in LAYERS)

    @classmethod
    @contextmanager
    def builder(
        cls, source: Path, settings: ConvertSettings, batches: Batches | None
    ) -> Iterator[Build]:
        """See `Converter.builder`: calibrates once."""
        with _folder() as folder:
            if settings.precision == "fp16":
                graph = _with_names(source, folder)
                yield lambda out, exclude: _write_fp16(graph, out, exclude)
                return
            batches = required(batches)
            _check_version()
            ready = _preprocessed(source, folder)
            cache = _calibrate(ready, batches, settings, folder)
            yield lambda out, exclude: _write_int8(
                ready, cache, out, replace(settings, exclude=exclude)
            )


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="evalkit-") as folder:
        yield Path(folder)


def _check_version() -> None:
    if "calibration_cache_path" not in signature(ort_quantization.quantize_static).parameters:
        raise UnavailableError(
            f"int8 needs quantisation tools that take a calibration cache, and onnxruntime "
            f"{ort.__version__} has none. Install a newer one: pip install -U onnxruntime."
        )


def _toolchain(source: Path, action: str) -> AbstractContextManager[None]:
    remedy = "Check the model with onnx.checker.check_model, or export it with a newer opset (17)."
    return quiet(f"{source}: {action} failed", remedy)


def _with_names(source: Path, folder: Path) -> Path:
    """Write the model with a name for every node: a node without a name cannot be excluded."""
    with _toolchain(source, "reading the graph"):
        model = onnx.load(source)
        names = {node.name for node in model.graph.node}
        for node in model.graph.node:
            if not node.name:
                plain = f"{node.op_type}_{node.output[0]}"
                tries = itertools.chain([plain], (f"{plain}_{n}" for n in itertools.count(2)))
                node.name = next(name for name in tries if name not in names)
                names.add(node.name)
        out = folder / "named.onnx"
        onnx.save(model, out)
        return out


def _preprocessed(source: Path, folder: Path) -> Path:
    """Fold constants and BatchNorm into the convolutions, and infer shapes."""
    graph, out = _with_names(source, folder), folder / "preprocessed.onnx"
    with _toolchain(source, "pre-processing for quantisation"):
        if _opset(graph) < PER_CHANNEL_OPSET:
            model = onnx.version_converter.convert_version(onnx.load(graph), PER_CHANNEL_OPSET)
            onnx.save(model, graph)
        # Symbolic shapes help transformers; for these networks ONNX's own inference is equal.
        quant_pre_process(str(graph), str(out), skip_symbolic_shape=True)
    return out


class _Reader(ort_quantization.CalibrationDataReader):  # type: ignore[misc]
    """A chunk of batches in the form that the toolchain reads."""

    def __init__(self, name: str, chunk: list[NDArray[Any]]) -> None:
        self._feeds = iter([{name: batch} for batch in chunk])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._feeds, None)


def _calibrate(model: Path, batches: Batches, settings: ConvertSettings, folder: Path) -> Path:
    """Collect the ranges of all activations, and write them to a file."""
    options: dict[str, Any] = {"symmetric": settings.symmetric}
    if settings.method != "minmax":
        options["num_bins"] = HISTOGRAM_BINS
    with _toolchain(model, "calibrating"):
        calibrator = create_calibrator(
            model,
            QUANTISED,
            augmented_model_path=str(folder / "augmented.onnx"),
            calibrate_method=_METHODS[settings.method],
            extra_options=options,
        )
        calibrator.infer_session = _session(folder / "augmented.onnx", settings.threads)
        (info,) = calibrator.infer_session.get_inputs()
        remaining = iter(batches)
        while chunk := list(itertools.islice(remaining, CHUNK)):
            calibrator.collect_data(_Reader(info.name, chunk))
        ranges = calibrator.compute_data()
        for name, data in ranges.items():
            check_range(name, *data.range_value)
        cache = folder / "ranges.json"
        save_tensors_data(ranges, cache)
        return cache


def _session(model: Path, threads: int | None) -> Any:
    """Open the graph that outputs its activations; the toolchain's session would use every core."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _write_int8(model: Path, cache: Path, out: Path, settings: ConvertSettings) -> Built:
    signed = ort_quantization.QuantType.QInt8
    activations = signed if settings.symmetric else ort_quantization.QuantType.QUInt8
    with _toolchain(model, "quantising"):
        ort_quantization.quantize_static(
            str(model),
            str(out),
            calibration_cache_path=cache,
            calibrate_method=_METHODS[settings.method],
            quant_format=ort_quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            per_channel=settings.per_channel,
            activation_type=activations,
            weight_type=signed,
            nodes_to_exclude=list(settings.exclude),
            extra_options={"ActivationSymmetric": settings.symmetric, "WeightSymmetric": True},
        )
    return Built(
        versions=versions("onnxruntime", "onnx"),
        details={
            "format": "QDQ",
            "activations": "int8" if settings.symmetric else "uint8",
            "weights": "int8",
            "operators": list(QUANTISED),
            "histogram_bins": None if settings.method == "minmax" else HISTOGRAM_BINS,
            "opset": _opset(out),
        },
        notes=(SYMMETRIC_NOTE,) if settings.symmetric else (),
    )


def _write_fp16(model: Path, out: Path, exclude: tuple[str, ...]) -> Built:
    float16 = optional("onnxconverter_common.float16", "fp16")
    with _toolchain(model, "converting to fp16"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        converted = float16.convert_float_to_float16(
            onnx.shape_inference.infer_shapes(onnx.load(model)),
            min_positive_val=float(_HALF.smallest_subnormal),
            max_finite_val=float(_HALF.max),
            keep_io_types=True,
            node_block_list=list(exclude),
        )
        onnx.save(converted, out)
    # "the float32 number X will be truncated to Y": truncation to the smallest halves is no loss.
    largest = tuple(f"truncated to {sign * float(_HALF.max)}" for sign in (1, -1))
    count = sum(str(warning.message).endswith(largest) for warning in caught)
    return Built(
        versions=versions("onnxruntime", "onnx", "onnxconverter-common"),
        details={
            "operators_kept_in_fp32": sorted(float16.DEFAULT_OP_BLOCK_LIST),
            "opset": _opset(out),
        },
        notes=(f"{count} times values beyond fp16 were cut to its largest.",) if count else (),
    )


def _opset(model: Path) -> int:
    imports = onnx.load(model, load_external_data=False).opset_import
    return max(int(entry.version) for entry in imports if entry.domain in {"", "ai.onnx"})
