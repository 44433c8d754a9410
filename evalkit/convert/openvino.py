"""OpenVINO: fp16 weights by its own compression, int8 by NNCF's post-training quantisation.

Both read ONNX or IR and write IR: an ``.xml``, its weights beside it as ``.bin``.

Defects of the toolchain, and what this module does about them:

- Weights of a depthwise convolution come out of an ONNX file through a Reshape. NNCF quantises in
  front of it, and OpenVINO then runs the convolution in fp32. Here the constants are folded first.
- Saving rounds the fp32 constants of an int8 model to fp16. Here it does not.
- MinMax takes the mean over the batches of each activation's extremes. Here it takes the extremes
  of all batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from evalkit.backends.base import Precision
from evalkit.backends.openvino import cause, read_graph
from evalkit.convert.base import Batches, Built, Converter, ConvertSettings, Method
from evalkit.convert.toolchain import check_range, optional, quiet, required, versions

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
        "bf16": "OpenVINO runs the fp32 model itself in bf16 where the CPU can, so no model has "
        "to be built. Evaluate the fp32 file with --backend openvino --precision bf16.",
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
            return Built(versions("openvino"), details={"arithmetic": "that of the device"})
        quantised = _quantise(source, graph, settings, required(batches))
        _check_ranges(quantised)
        ov.save_model(quantised, out, compress_to_fp16=False)
        return Built(
            versions("openvino", "nncf"),
            details={
                "preset": "performance" if settings.symmetric else "mixed",
                "weights": "symmetric int8",
                "bias_correction": "fast",
                "outliers": OUTLIERS if settings.method == "percentile" else None,
            },
        )


def _quantise(source: Path, graph: Any, settings: ConvertSettings, batches: Batches) -> Any:
    remedy = (
        "Leave the layer that it names out with --exclude, or quantise with --backend onnxruntime, "
        "whose int8 graphs OpenVINO runs too."
    )
    with quiet(f"{source}: NNCF cannot quantise it", remedy, cause):
        nncf = optional("nncf", "int8 for OpenVINO")
        weights = nncf.quantization.advanced_parameters.QuantizationParameters(
            per_channel=settings.per_channel
        )
        presets = nncf.QuantizationPreset
        return nncf.quantize(
            _folded(graph),
            nncf.Dataset(batches),
            preset=presets.PERFORMANCE if settings.symmetric else presets.MIXED,
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
    """Return how NNCF computes the ranges of activations."""
    from nncf.quantization import range_estimator as ranges  # noqa: PLC0415 - optional

    if method == "minmax":
        return ranges.RangeEstimatorParametersSet.MINMAX
    cut = ranges.StatisticsCollectorParameters(
        statistics_type=ranges.StatisticsType.QUANTILE,
        aggregator_type=ranges.AggregatorType.MEAN,
        quantile_outlier_prob=OUTLIERS,
    )
    return ranges.RangeEstimatorParameters(min=cut, max=cut)


def _check_ranges(graph: Any) -> None:
    """Check that no activation overflowed while calibrating."""
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":
            ends = (node.input_value(place).get_node() for place in range(1, 5))
            limits = (end.data for end in ends if end.get_type_name() == "Constant")
            check_range(node.get_friendly_name(), *limits)
