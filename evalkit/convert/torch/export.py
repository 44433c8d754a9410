"""PyTorch networks as exported programs: what the quantiser takes, and what is written."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from evalkit.backends.base import TensorInfo
from evalkit.backends.tensors import explained
from evalkit.backends.torch.loading import Loaded, cause

_ATEN = torch.ops.aten
# Of every layer that can be quantised: the place of its weight among its arguments.
_LAYERS = {_ATEN.conv2d.default: 1, _ATEN.linear.default: 1}
_STRIDE = 32  # the largest of a detector
_IN_PLACE = {
    _ATEN.relu_.default: _ATEN.relu.default,
    _ATEN.hardtanh_.default: _ATEN.hardtanh.default,
    _ATEN.add_.Tensor: _ATEN.add.Tensor,
}


def input_of(loaded: Loaded, shape: tuple[int, ...]) -> TensorInfo:
    """Describe the input; find fixed sizes, which a TorchScript file does not tell.

    A network whose embedding changes its length with the image size takes images of one size.
    """
    if loaded.form != "torchscript":
        return loaded.input
    larger = (*shape[:2], *(size + _STRIDE for size in shape[2:]))
    try:
        lengths = [_lengths(loaded.module(torch.zeros(sizes))) for sizes in (shape, larger)]
        fixed = lengths[0] != lengths[1]
    except RuntimeError:
        fixed = True
    sizes = shape[1:] if fixed else (shape[1], *loaded.input.shape[2:])
    return replace(loaded.input, shape=(loaded.input.shape[0], *sizes))


def _lengths(result: Any) -> list[int]:
    values = result if isinstance(result, tuple | list) else [result]
    return [
        value.shape[1] for value in values if isinstance(value, torch.Tensor) and value.ndim == 2
    ]


def exported(source: Path, loaded: Loaded, info: TensorInfo, shape: tuple[int, ...]) -> Any:
    """Export a loaded network to a graph of ATen operators that a quantiser understands.

    Parameters
    ----------
    source : Path
        For the message.
    loaded : Loaded
        The float network.
    info : TensorInfo
        Its input; sizes that are not numbers stay open.
    shape : tuple of int
        Of one input with the batch.

    Raises
    ------
    evalkit.core.errors.InputError
        A TorchScript file uses features that an exported program lacks.
    """
    module = loaded.module
    if loaded.form == "torchscript":
        module = _from_torchscript(source, module, shape)
    graph = _program(module, info, shape, torch.float32).module(check_guards=False)
    for node in graph.graph.nodes:
        node.target = _IN_PLACE.get(node.target, node.target)
    graph.recompile()
    return graph


def export(
    module: Any, info: TensorInfo, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> bytes:
    """Export a network and return the file, with the open sizes of an input left open."""
    program = _program(module, info, shape, dtype)
    program.example_inputs = None  # it would be written as a pickle
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def layer_names(graph: Any) -> tuple[str, ...]:
    """Name the layers that can be quantised, in the network's order."""
    names = (layer_of(node) for node in graph.graph.nodes)
    return tuple(dict.fromkeys(name for name in names if name))


def layer_of(node: Any) -> str | None:
    """Name the layer that a node computes, by its weight; None for what is no such layer."""
    place = _LAYERS.get(node.target)
    if place is None:
        return None
    weight = node.args[place]
    name = str(weight.target) if weight.op == "get_attr" else str(node.name)
    return name.removesuffix(".weight")


def _program(module: Any, info: TensorInfo, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
    fixed = [isinstance(size, int) for size in info.shape]
    sizes = [size if fixed[0] or place else 2 for place, size in enumerate(shape)]
    open_dims = {place: torch.export.Dim.AUTO for place, known in enumerate(fixed) if not known}
    example = torch.zeros(sizes, dtype=dtype)
    return torch.export.export(module, (example,), dynamic_shapes=(open_dims,), strict=False)


def _from_torchscript(source: Path, script: Any, shape: tuple[int, ...]) -> Any:
    """Turn TorchScript into an exported network by PyTorch's own converter, and check it."""
    example = torch.rand((2, *shape[1:]), generator=torch.Generator().manual_seed(0)) * 2 - 1
    version = torch.__version__
    action = f"{source} is TorchScript that PyTorch {version} cannot turn into an exported program"
    remedy = (
        "Export the float network itself (torch.export.export, torch.export.save to a .pt2), or "
        "give its state dict with --architecture."
    )
    with explained(action, remedy, cause=cause):
        # PyTorch has no public converter for this: the private name may change.
        from torch._export.converter import TS2EPConverter  # noqa: PLC0415 - see above

        module = TS2EPConverter(script, (example,)).convert().module(check_guards=False)
        torch.testing.assert_close(module(example), script(example), rtol=1e-3, atol=1e-5)
    _with_parameters(module)
    _with_plain_convolutions(module)
    return module


def _with_parameters(module: Any) -> None:
    """Turn weights, which the converter keeps as buffers, into parameters: folding needs them."""
    for owner in module.modules():
        for name, value in list(owner.named_buffers(recurse=False)):
            if value.is_floating_point():
                delattr(owner, name)
                owner.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))


def _with_plain_convolutions(module: Any) -> None:
    """Use the convolutions of `torch.export`: TorchScript has one operator for all kinds."""
    for node in module.graph.nodes:
        if node.target == _ATEN.convolution.default:
            *args, transposed, _, groups = node.args
            if not transposed and len(args[3]) == 2:
                node.target, node.args = _ATEN.conv2d.default, (*args, groups)
    module.recompile()
