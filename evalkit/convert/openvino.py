"""OpenVINO: fp16 weights by its own compression, int8 by NNCF's post-training quantisation.

Both read ONNX or IR and write IR: an ``.xml``, its weights beside it as ``.bin``.

What the toolchain gets wrong if it is left to itself:

- Weights of a depthwise convolution come out of an ONNX file through a Reshape. NNCF quantises in
  front of it, and OpenVINO then runs the convolution in fp32. The constants are folded first.
- Saving rounds what stays in fp32 to fp16.
- Its MinMax takes the mean over the batches of each activation's extremes; here their extremes.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from evalkit.backends.base import Precision
from evalkit.backends.openvino import cause, read_graph
from evalkit.convert.base import Batches, Built, Converter, ConvertSettings, Method
from evalkit.core.errors import InputError, UnavailableError, install_command

# isort: split
import openvino as ov
from openvino.passes import ConstantFolding, Manager

LAYERS = frozenset(
    {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData"}
    | {"MatMul"}
)
OUTLIERS = 1e-4
"""Share of an activation's values that the percentile method cuts off at each end."""


class OpenVinoConverter(Converter):
    """ONNX or IR to IR."""

    name: ClassVar[str] = "openvino"
    targets: ClassVar[tuple[Precision, ...]] = ("fp16", "int8")
    methods: ClassVar[tuple[Method, ...]] = ("minmax", "percentile")
    refusals: ClassVar[Mapping[Precision, str]] = {
        "bf16": "OpenVINO runs the fp32 model itself in bf16 where the CPU can: nothing has to be "
        "built. Evaluate the fp32 file with --backend openvino --precision bf16.",
    }
    suffix: ClassVar[str] = ".xml"

    @classmethod
    def layers(cls, source: Path, settings: ConvertSettings) -> tuple[str, ...]:
        """See `Converter.layers`; OpenVINO compresses all weights to fp16 or none."""
        if settings.precision != "int8":
            return ()
        nodes = read_graph(source).get_ordered_ops()
        return tuple(n.get_friendly_name() for n in nodes if n.get_type_name() in LAYERS)

    @classmethod
    def build(
        cls, source: Path, out: Path, settings: ConvertSettings, batches: Batches | None
    ) -> Built:
        """See `Converter.build`."""
        graph = read_graph(source)
        if settings.precision == "fp16":
            ov.save_model(graph, out, compress_to_fp16=True)
            return Built(versions=_versions(), details={"arithmetic": "that of the device"})
        if batches is None:
            raise InputError("int8 needs calibration images: give --calibration.")
        quantised = _quantise(source, graph, settings, batches)
        _check_ranges(quantised)
        ov.save_model(quantised, out, compress_to_fp16=False)
        return Built(
            versions=_versions("nncf"),
            details={
                "preset": "performance" if settings.symmetric else "mixed",
                "weights": "symmetric int8",
                "bias_correction": "fast",
                "outliers": OUTLIERS if settings.method == "percentile" else None,
            },
        )


def _quantise(source: Path, graph: Any, settings: ConvertSettings, batches: Batches) -> Any:
    with _toolchain(source) as nncf:
        weights = nncf.quantization.advanced_parameters.QuantizationParameters(
            per_channel=settings.per_channel
        )
        preset = nncf.QuantizationPreset.PERFORMANCE
        return nncf.quantize(
            _folded(graph),
            nncf.Dataset(batches),
            preset=preset if settings.symmetric else nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(batches),
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=list(settings.exclude)),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                weights_quantization_params=weights,
                activations_range_estimator_params=_ranges(settings.method),
            ),
        )


def _folded(graph: Any) -> Any:
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(graph)
    return graph


def _ranges(method: Method) -> Any:
    """Return how the ranges of activations come from the batches."""
    from nncf.quantization import range_estimator as ranges  # noqa: PLC0415 - optional

    if method == "minmax":
        return ranges.RangeEstimatorParametersSet.MINMAX
    cut = ranges.StatisticsCollectorParameters(
        statistics_type=ranges.StatisticsType.QUANTILE,
        aggregator_type=ranges.AggregatorType.MEAN,
        quantile_outlier_prob=OUTLIERS,
    )
    return ranges.RangeEstimatorParameters(min=cut, max=cut)


@contextmanager
def _toolchain(source: Path) -> Iterator[Any]:
    """Yield NNCF, its chatter kept from the output and its failures worded."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import nncf  # noqa: PLC0415 - optional

            nncf.set_log_level(logging.ERROR)
            yield nncf
    except ImportError as error:
        raise UnavailableError(
            f"int8 for OpenVINO needs NNCF: {error}. Install it: {install_command('convert')}."
        ) from error
    except (InputError, UnavailableError, OSError, MemoryError):
        raise
    except Exception as error:
        raise InputError(
            f"{source}: NNCF cannot quantise it: {cause(error)}. Leave the layer that it names "
            "out with --exclude, or quantise with --backend onnxruntime, whose int8 graphs "
            "OpenVINO runs too."
        ) from error


def _check_ranges(graph: Any) -> None:
    """Refuse what was calibrated with activations that overflow."""
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        ends = (node.input_value(place).get_node() for place in range(1, 5))
        for end in ends:
            if end.get_type_name() == "Constant" and not np.isfinite(end.data).all():
                raise InputError(
                    f"The activation {node.get_friendly_name()!r} has no finite range over the "
                    "calibration images: the model overflows or gives NaN. Check the model, --mean "
                    "and --std."
                )


def _versions(*packages: str) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("openvino", *packages)}
