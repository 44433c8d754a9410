"""From an ONNX file to TVM's graph at a precision, channels last, constants folded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.relax import transform
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.relax.frontend.onnx import from_onnx

from evalkit.backends.base import Precision
from evalkit.backends.kernels import Kernel
from evalkit.backends.tensors import explained
from evalkit.backends.tvm.onnx import mended, onnx_infos

Shape: TypeAlias = tuple[int | None, ...]
Sizes: TypeAlias = tuple[int | str | None, ...]
BATCH = "n"  # the name of an open batch size
HEAVY_OPS = frozenset(
    {"relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d", "relax.matmul"}
    | {"relax.nn.conv1d_transpose", "relax.nn.conv2d_transpose", "relax.nn.attention"}
)
_QUANTISATION = frozenset({"relax.quantize", "relax.dequantize"})
_FOLDS = 12  # rounds: each folds operators that the previous one made constant
# Channels last, except for transposed convolutions: their loops exist for NCHW only.
_LAYOUTS = {
    "relax.nn.conv2d": ["NHWC", "HWIO"],
    "relax.nn.conv2d_transpose": ["NCHW", "IOHW"],
}


def import_graph(proto: Any, shape: Shape, model: Path) -> Any:
    """Import an ONNX model for one input shape; the batch may stay open.

    Raises
    ------
    evalkit.core.errors.InputError
        TVM lacks an operator of the model, or the shape does not fit it.
    """
    image, _ = onnx_infos(proto)
    sizes = [tirx.Var(BATCH, "int64") if size is None else size for size in shape]
    action = (
        f"{model}: TVM {tvm.__version__} cannot import it for a batch of shape {shape_text(shape)}"
    )
    remedy = (
        "Export it in fp32 with operators that this version knows, or give the size that it was "
        "made for."
    )
    with explained(action, remedy), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one for each name that it changes
        return from_onnx(mended(proto), {image.name: sizes}, keep_params_in_input=False)


def built_in(graph: Any) -> Precision:
    """Return the precision that an imported graph was built in: int8 where it quantises."""
    kernels = graph_kernels(graph)
    if any(kernel.op in _QUANTISATION for kernel in kernels):
        return "int8"
    dtypes = {dtype for kernel in kernels for dtype in kernel.dtypes}
    return "fp16" if "float16" in dtypes else "bf16" if "bfloat16" in dtypes else "fp32"


def lower(graph: Any, *, half: bool) -> Any:
    """Fold constants, put the channels last, and with `half` round to fp16."""
    graph = _rewritten(graph, _Bounds(graph))
    passes = [transform.DecomposeOpsForInference(), transform.CanonicalizeBindings()]
    graph = _fold(tvm.transform.Sequential(passes)(graph))
    passes = [transform.Normalize(), transform.ToMixedPrecision()] if half else []
    passes += [transform.ConvertLayout(_LAYOUTS), transform.Normalize()]
    return _fold(tvm.transform.Sequential(passes)(graph))


def graph_kernels(graph: Any) -> list[Kernel]:
    """List the operators of a graph with the element types of their input tensors."""
    kernels: list[Kernel] = []

    def note(value: Any) -> None:
        if isinstance(value, tvm.ir.Call) and isinstance(value.op, tvm.ir.Op):
            types = (getattr(argument, "ty", None) for argument in value.args)
            dtypes = (str(t.dtype) for t in types if isinstance(t, relax.TensorType))
            kernels.append(Kernel(value.op.name, "llvm", tuple(dtypes)))

    relax.analysis.post_order_visit(graph["main"], note)
    return kernels


def output_types(graph: Any) -> list[tuple[str, Sizes]]:
    """Return element type and shape of each output; an open batch has its name, others None."""
    kind = graph["main"].ret_ty
    fields = kind.fields if isinstance(kind, tvm.ir.TupleType) else [kind]
    return [(str(field.dtype), tuple(_size(size) for size in field.shape)) for field in fields]


def shape_text(shape: Shape) -> str:
    """Write a shape for a message.

    Examples
    --------
    >>> shape_text((None, 3, 112, 112))
    '(n, 3, 112, 112)'
    """
    return f"({', '.join(BATCH if size is None else str(size) for size in shape)})"


def _size(size: Any) -> int | str | None:
    if isinstance(size, tirx.IntImm):
        return int(size)
    return BATCH if isinstance(size, tirx.Var) else None


def _fold(graph: Any) -> Any:
    """Compute operators whose inputs are constants, with NumPy.

    ``FoldConstant`` compiles a function for every operator that it folds: 20 seconds and more for
    a network of fifty layers.
    """
    for _ in range(_FOLDS):
        folder = _Folder(graph)
        folded = _rewritten(graph, folder)
        if not folder.count:
            break
        graph = transform.CanonicalizeBindings()(folded)
    return graph


def _rewritten(graph: Any, visitor: Any) -> Any:
    main = visitor.visit_expr(graph["main"])
    graph = tvm.IRModule({**dict(graph.functions), graph.get_global_var("main"): main})
    return transform.DeadCodeElimination()(graph)


@mutator
class _Bounds(PyExprMutator):  # type: ignore[misc]
    """Turns ``Clip`` back into operators: the importer makes loops of it, which fp16 lacks."""

    def visit_call_(self, call: Any) -> Any:
        """Replace a call of the loops for a maximum or a minimum."""
        call = super().visit_call_(call)
        if getattr(call.op, "name", "") == "relax.call_tir" and len(call.args[1].fields) == 2:
            name = call.args[0].name_hint.rstrip("0123456789_")
            if name in ("maximum", "minimum"):
                return getattr(relax.op, name)(*call.args[1].fields)
        return call


@mutator
class _Folder(PyExprMutator):  # type: ignore[misc]
    """Replaces calls on constants by their values."""

    def __init__(self, graph: Any) -> None:
        super().__init__(graph)
        self.count = 0

    def visit_call_(self, call: Any) -> Any:
        """Fold a call of a known operator."""
        call = super().visit_call_(call)
        compute = _NUMPY.get(getattr(call.op, "name", ""))
        tensors = [value for value in call.args if isinstance(value, tvm.ir.GenericConst)]
        if compute is None or not tensors or len(tensors) < len(call.args) - _shapes(call):
            return call
        self.count += 1
        value = compute(call, *(tensor.value.numpy() for tensor in tensors))
        return relax.const(np.asarray(value, order="C"))


def _shapes(call: Any) -> int:
    return sum(isinstance(value, relax.ShapeExpr) for value in call.args)


def _axes(values: Any) -> Any:
    return None if values is None else tuple(int(value) for value in values)


_NUMPY: Mapping[str, Callable[..., Any]] = {
    "relax.add": lambda _, a, b: a + b,
    "relax.subtract": lambda _, a, b: a - b,
    "relax.multiply": lambda _, a, b: a * b,
    "relax.divide": lambda _, a, b: a / b,
    "relax.sqrt": lambda _, a: np.sqrt(a),
    "relax.rsqrt": lambda _, a: 1 / np.sqrt(a),
    "relax.astype": lambda call, a: a.astype(str(call.attrs.dtype)),
    "relax.isnan": lambda _, a: np.isnan(a),
    "relax.where": lambda _, a, b, c: np.where(a, b, c),
    "relax.negative": lambda _, a: -a,
    "relax.reshape": lambda call, a: a.reshape([int(size) for size in call.args[1].values]),
    "relax.squeeze": lambda call, a: np.squeeze(a, _axes(call.attrs.axis)),
    "relax.expand_dims": lambda call, a: np.expand_dims(a, _axes(call.attrs.axis)),
    "relax.permute_dims": lambda call, a: np.transpose(a, _axes(call.attrs.axes)),
}
