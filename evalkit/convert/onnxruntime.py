"""ONNX Runtime: fp16 by onnxconverter-common, static int8 by its own quantisation tools.

int8 is written as QDQ (QuantizeLinear and DequantizeLinear around float operators), the form that
OpenVINO, TVM and TensorRT read too; signed and symmetric by default, which all of them take.

What the toolchain gets wrong if it is left to itself:

- Its entropy calibrator makes as many histogram bins as it has quantised ones, so that nothing is
  ever cut off: MinMax in disguise. It is created here with `HISTOGRAM_BINS`.
- Its histogram calibrators keep every activation of every batch until the end: several GB. They
  are fed `CHUNK` batches at a time here.
- It writes scales for each channel into graphs of an opset that has none, which then do not load.
  Older graphs are brought to `PER_CHANNEL_OPSET` here.
- Its fp16 converter cuts weights beyond 10,000 though fp16 reaches 65,504; it is told so here.
- There is no int8 kernel for PRelu, sigmoids and the like on the CPU: quantising their inputs and
  weights costs accuracy and time. Only `QUANTISED` operators are.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import itertools
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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
from evalkit.backends.tensors import first_line
from evalkit.convert.base import Batches, Build, Built, Converter, ConvertSettings, Method
from evalkit.core.errors import InputError, UnavailableError, install_command

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
    "Symmetric int8 is the form that OpenVINO, TVM and TensorRT read too. ONNX Runtime on x86 "
    "leaves convolutions at residual additions in fp32 then; --no-symmetric runs them in int8, "
    "often faster and closer to fp32."
)
_HALF = np.finfo(np.float16)
_METHODS: dict[Method, Any] = {
    "minmax": ort_quantization.CalibrationMethod.MinMax,
    "entropy": ort_quantization.CalibrationMethod.Entropy,
    "percentile": ort_quantization.CalibrationMethod.Percentile,
}


class OnnxRuntimeConverter(Converter):
    """ONNX to ONNX."""

    name: ClassVar[str] = "onnxruntime"
    targets: ClassVar[tuple[Precision, ...]] = ("fp16", "int8")
    refusals: ClassVar[dict[Precision, str]] = {
        "bf16": "ONNX Runtime's CPU provider has no bf16 convolution, so that a bf16 graph does "
        "not load. Build fp16 or int8, or take bf16 with --backend openvino or torch.",
    }
    suffix: ClassVar[str] = ".onnx"

    @classmethod
    def layers(cls, source: Path, settings: ConvertSettings) -> tuple[str, ...]:
        """See `Converter.layers`: as named after pre-processing where that is done."""
        with _folder() as folder:
            read = _preprocessed if settings.precision == "int8" else _named
            graph = onnx.load(read(source, folder), load_external_data=False).graph
            return tuple(node.name for node in graph.node if node.op_type in LAYERS)

    @classmethod
    def build(
        cls, source: Path, out: Path, settings: ConvertSettings, batches: Batches | None
    ) -> Built:
        """See `Converter.build`."""
        with cls.builder(source, settings, batches) as build:
            return build(out, settings.exclude)

    @classmethod
    @contextmanager
    def builder(
        cls, source: Path, settings: ConvertSettings, batches: Batches | None
    ) -> Iterator[Build]:
        """See `Converter.builder`: calibrates once."""
        with _folder() as folder:
            if settings.precision == "fp16":
                named = _named(source, folder)
                yield lambda out, exclude: _write_fp16(named, out, exclude)
                return
            if batches is None:
                raise InputError("int8 needs calibration images: give --calibration.")
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


@contextmanager
def _toolchain(source: Path, what: str) -> Iterator[None]:
    """Keep the toolchain's chatter from the output, and word its failures."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (InputError, UnavailableError, OSError, MemoryError):
        raise
    except Exception as error:
        raise InputError(
            f"{source}: {what} failed: {first_line(error)}. Check the model with "
            "onnx.checker.check_model, or export it with a newer opset (17)."
        ) from error


def _named(source: Path, folder: Path) -> Path:
    """Write the model with a name for every node: without one, a node cannot be excluded."""
    with _toolchain(source, "reading the graph"):
        model = onnx.load(source)
        held = {node.name for node in model.graph.node}
        for node in model.graph.node:
            if not node.name:
                plain = f"{node.op_type}_{node.output[0]}"
                tries = itertools.chain([plain], (f"{plain}_{n}" for n in itertools.count(2)))
                node.name = next(name for name in tries if name not in held)
                held.add(node.name)
        out = folder / "named.onnx"
        onnx.save(model, out)
        return out


def _preprocessed(source: Path, folder: Path) -> Path:
    """Fold constants and BatchNorm into the convolutions, and infer shapes."""
    named, out = _named(source, folder), folder / "preprocessed.onnx"
    with _toolchain(source, "pre-processing for quantisation"):
        if _opset(named) < PER_CHANNEL_OPSET:
            model = onnx.version_converter.convert_version(onnx.load(named), PER_CHANNEL_OPSET)
            onnx.save(model, named)
        # Symbolic shapes help transformers; for these networks ONNX's own inference says the same.
        quant_pre_process(str(named), str(out), skip_symbolic_shape=True)
    return out


class _Reader(ort_quantization.CalibrationDataReader):  # type: ignore[misc]
    """A chunk of batches, as the toolchain reads them."""

    def __init__(self, name: str, chunk: list[NDArray[Any]]) -> None:
        self._feeds = iter([{name: batch} for batch in chunk])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._feeds, None)


def _calibrate(model: Path, batches: Batches, settings: ConvertSettings, folder: Path) -> Path:
    """Collect the ranges of all activations, and write them to a file."""
    options: dict[str, Any] = {"symmetric": settings.symmetric}
    if settings.method != "minmax":
        options["num_bins"] = HISTOGRAM_BINS
    with _toolchain(model, "calibrating"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of NaN, which _check_ranges words better
        calibrator = create_calibrator(
            model,
            QUANTISED,
            augmented_model_path=str(folder / "augmented.onnx"),
            calibrate_method=_METHODS[settings.method],
            extra_options=options,
        )
        calibrator.infer_session = _session(folder / "augmented.onnx", settings.threads)
        (info,) = calibrator.infer_session.get_inputs()
        given = iter(batches)
        while chunk := list(itertools.islice(given, CHUNK)):
            calibrator.collect_data(_Reader(info.name, chunk))
        ranges = calibrator.compute_data()
        _check_ranges(ranges)
        cache = folder / "ranges.json"
        save_tensors_data(ranges, cache)
        return cache


def _session(model: Path, threads: int | None) -> Any:
    """Open the graph that shows its activations; the toolchain's own would take every core."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _check_ranges(ranges: Any) -> None:
    for name, data in ranges.items():
        if not all(np.isfinite(value).all() for value in data.range_value):
            raise InputError(
                f"The activation {name!r} has no finite range over the calibration images: the "
                "model overflows or gives NaN. Check the model, --mean and --std."
            )


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
        versions=_versions("onnx"),
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
    try:
        from onnxconverter_common import float16  # noqa: PLC0415 - for this target alone
    except ImportError as error:
        raise UnavailableError(
            f"fp16 needs onnxconverter-common: {error}. Install it: {install_command('convert')}."
        ) from error
    with _toolchain(model, "converting to fp16"), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        converted = float16.convert_float_to_float16(
            onnx.shape_inference.infer_shapes(onnx.load(model)),
            min_positive_val=float(_HALF.smallest_subnormal),
            max_finite_val=float(_HALF.max),
            keep_io_types=True,
            node_block_list=list(exclude),
        )
        onnx.save(converted, out)
    # "the float32 number X will be truncated to Y": the smallest halves are no loss.
    cut = [w for w in told if str(w.message).endswith(f"truncated to {float(_HALF.max)}")]
    cut += [w for w in told if str(w.message).endswith(f"truncated to {-float(_HALF.max)}")]
    return Built(
        versions=_versions("onnx", "onnxconverter-common"),
        details={
            "operators_kept_in_fp32": sorted(float16.DEFAULT_OP_BLOCK_LIST),
            "opset": _opset(out),
        },
        notes=(f"{len(cut)} times values beyond fp16 were cut to its largest.",) if cut else (),
    )


def _opset(model: Path) -> int:
    imports = onnx.load(model, load_external_data=False).opset_import
    return max(int(entry.version) for entry in imports if entry.domain in {"", "ai.onnx"})


def _versions(*packages: str) -> dict[str, str]:
    return {
        "onnxruntime": ort.__version__,
        **{name: importlib.metadata.version(name) for name in packages},
    }
