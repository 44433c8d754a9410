"""torchao's x86 quantiser with layers left out, on a network from any source."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch
from torch.nn import functional
from torchao.quantization.pt2e.observer import MinMaxObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import QuantizationConfig, QuantizationSpec
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    _X86InductorQuantizationAnnotation,
)

_ATEN = torch.ops.aten
_EPSILON = 2**-12  # the least scale, as in the quantiser's own configuration
# The quantiser knows an operator by the function that it was exported from. Saved programs and
# those of functional code do not have this information.
_ORIGINS = {
    _ATEN.conv2d.default: functional.conv2d,
    _ATEN.linear.default: functional.linear,
    _ATEN.relu.default: functional.relu,
    _ATEN.hardtanh.default: functional.hardtanh,
    _ATEN.add.Tensor: torch.add,
}


def quantiser(excluded: Set[str], *, per_channel: bool) -> Any:
    """Return the quantiser for one network.

    Parameters
    ----------
    excluded : set of str
        Names of nodes that stay in fp32.
    per_channel : bool
        One scale for each output channel of a weight, instead of one for all.
    """
    return _Quantiser(excluded).set_global(_configuration(per_channel=per_channel))


class _Quantiser(X86InductorQuantizer):  # type: ignore[misc]
    def __init__(self, excluded: Set[str]) -> None:
        super().__init__()
        self._excluded = excluded

    def annotate(self, model: Any) -> Any:
        for node in model.graph.nodes:
            if node.target in _ORIGINS:
                node.meta["source_fn_stack"] = [(node.name, _ORIGINS[node.target])]
            if node.name in self._excluded:
                done = _X86InductorQuantizationAnnotation(_annotated=True)
                node.meta["quantization_annotation"] = done
        return super().annotate(model)


def _configuration(*, per_channel: bool) -> Any:
    activations = QuantizationSpec(
        dtype=torch.uint8,
        quant_min=0,
        quant_max=255,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=_EPSILON),
    )
    observer = PerChannelMinMaxObserver if per_channel else MinMaxObserver
    weights = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric,
        ch_axis=0 if per_channel else None,
        observer_or_fake_quant_ctr=observer.with_args(eps=_EPSILON),
    )
    return QuantizationConfig(activations, activations, weights, None)
