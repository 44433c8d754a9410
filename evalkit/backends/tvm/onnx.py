"""ONNX files in the form that TVM's importer takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tvm
from onnx import version_converter
from tvm.relax.frontend.onnx import onnx_frontend

from evalkit.backends.base import TensorInfo
from evalkit.backends.onnx_files import check_external_data, check_versions
from evalkit.backends.tensors import check_one_input, explained
from evalkit.core.errors import InputError

OPSET = 13  # the oldest that the importer supports completely
# The importer looks at an operator's name and ignores its domain. Of domains other than ONNX's own
# it implements these operators of ONNX Runtime; the quantisation ones mean the same.
_FOREIGN = frozenset(
    ("com.microsoft", name)
    for name in (
        *("Attention", "BiasGelu", "EmbedLayerNormalization", "FastGelu", "Gelu"),
        *("SkipLayerNormalization", "QuantizeLinear", "DequantizeLinear"),
    )
)


def load_onnx(model: Path) -> Any:
    """Read an ONNX file with the data beside it.

    Raises
    ------
    evalkit.core.errors.InputError
        It is no ONNX model, is too new, names data outside its folder, uses operators of other
        domains, or has several inputs.
    """
    content = model.read_bytes()
    check_external_data(model, content)
    runtime = f"TVM {tvm.__version__}"
    check_versions(model, content, runtime, opset=newest_opset(), ir=onnx.IR_VERSION)
    remedy = (
        "It is no ONNX model, is incomplete, or its external data is missing: export or fetch it "
        "again."
    )
    with explained(f"{model} cannot be read as ONNX", remedy):
        proto = onnx.load(model)
    if not proto.graph.node or not proto.graph.output:
        raise InputError(f"{model} is no ONNX model: it holds no graph. Export or fetch it again.")
    _check_domains(proto.graph, model)
    check_one_input([value.name for value in _image_inputs(proto)], model)
    return proto


def _check_domains(graph: Any, model: Path) -> None:
    """Check for operators that the importer would mistake for ONNX's own of the same name."""
    for node in graph.node:
        domain, kind = node.domain, node.op_type
        if domain not in {"", "ai.onnx"} and (domain, kind) not in _FOREIGN:
            raise InputError(
                f"{model}: node {node.name or ''.join(node.output[:1])!r} uses {domain}::{kind}, "
                f"but TVM {tvm.__version__} has ONNX's own operators only, and would run "
                "the one of that name. Export the model without it, or choose another backend."
            )
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _check_domains(inner, model)


def newest_opset() -> int:
    """Return the newest opset that any operator of the importer was written for.

    The importer runs a newer model by its own newest form of each operator, silently.
    """
    return max(
        int(name.removeprefix("_impl_v"))
        for operator in onnx_frontend._get_convert_map().values()
        for name in dir(operator)
        if name.startswith("_impl_v")
    )


def onnx_infos(proto: Any) -> tuple[TensorInfo, tuple[TensorInfo, ...]]:
    """Describe the input and the outputs as the file declares them."""
    (image,) = _image_inputs(proto)
    return _info(image), tuple(_info(value) for value in proto.graph.output)


def mended(proto: Any) -> Any:
    """Return a copy of the same meaning that the importer reads correctly.

    Old opsets are raised, and empty sizes and scales of ``Resize`` are left out.
    """
    opset = next((item.version for item in proto.opset_import if not item.domain), OPSET)
    if opset < OPSET:
        copy = version_converter.convert_version(proto, OPSET)
    else:
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
    empty = _empty_tensors(copy.graph)
    for node in copy.graph.node:
        if node.op_type == "Resize":
            node.input[:] = ["" if name in empty else name for name in node.input]
    return copy


def _empty_tensors(graph: Any) -> set[str]:
    names = {tensor.name for tensor in graph.initializer if 0 in tensor.dims}
    for node in graph.node:
        if node.op_type == "Constant":
            values = (item.t for item in node.attribute if item.name == "value")
            names |= {node.output[0] for value in values if 0 in value.dims}
    return names


def _image_inputs(proto: Any) -> list[Any]:
    """List the inputs without the weights, which old exporters list as inputs too."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in weights]


def _info(value: Any) -> TensorInfo:
    kind = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type) if kind.elem_type else "float32"
    sizes = (
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else dim.dim_param or None
        for dim in kind.shape.dim
    )
    return TensorInfo(value.name, np.dtype(dtype).name, tuple(sizes))
