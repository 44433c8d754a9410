"""From the kernels that a runtime executed to the precision that really ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from evalkit.backends.base import PRECISIONS, Precision

FLOATS = {
    "float": "fp32",
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "double": "fp64",
    "float64": "fp64",
}
INTEGERS = frozenset({"int8", "uint8"})
# Operators that do nearly all of a network's multiplications, in ONNX and in ONNX Runtime's fused
# forms.
HEAVY_OPS = frozenset(
    {"Conv", "FusedConv", "NhwcConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul"}
    | {"FusedMatMul", "TransposeMatMul", "MatMulNBits", "Attention", "MultiHeadAttention"}
    | {"LSTM", "GRU", "QLinearConv", "QLinearConvTranspose", "ConvInteger", "ConvIntegerToFloat"}
    | {"QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
    | {"QGemm", "QAttention"}
)
QUANTISATION_OPS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


@dataclass(frozen=True, slots=True)
class Kernel:
    """One executed operator.

    Attributes
    ----------
    op, provider : str
        The operator's name, and who executed it.
    dtypes : tuple of str
        Element types of its inputs, in the runtime's words.
    """

    op: str
    provider: str
    dtypes: tuple[str, ...]


def read_onnxruntime_profile(events: Iterable[Mapping[str, Any]]) -> list[Kernel]:
    """Read the kernels in a profile of ONNX Runtime.

    Parameters
    ----------
    events : iterable of mapping
        The parsed profile: Chrome trace events. Kernels are those of category ``Node`` whose name
        ends in ``_kernel_time``.
    """
    kernels = []
    for event in events:
        if event.get("cat") == "Node" and str(event.get("name")).endswith("_kernel_time"):
            args = event["args"]
            dtypes = tuple(next(iter(tensor), "") for tensor in args.get("input_type_shape", ()))
            kernels.append(Kernel(args["op_name"], args.get("provider", ""), dtypes))
    return kernels


def arithmetic(kernel: Kernel) -> str:
    """Return the precision at which a kernel multiplies: that of its first input.

    Examples
    --------
    >>> arithmetic(Kernel("QLinearConv", "CPUExecutionProvider", ("uint8", "float", "uint8")))
    'int8'
    """
    first = kernel.dtypes[0] if kernel.dtypes else ""
    return "int8" if first in INTEGERS else FLOATS.get(first, first or "unknown")


def count_arithmetic(kernels: Iterable[Kernel], heavy: frozenset[str] = HEAVY_OPS) -> Counter[str]:
    """Count the convolutions and products by precision.

    Without any, all operators on numbers count, except those that only change the element type.
    """
    kernels = list(kernels)
    chosen = [kernel for kernel in kernels if kernel.op in heavy]
    if not chosen:
        light = QUANTISATION_OPS | {"Cast"}
        known = {*FLOATS, *INTEGERS}
        chosen = [k for k in kernels if k.op not in light and k.dtypes and k.dtypes[0] in known]
    return Counter(arithmetic(kernel) for kernel in chosen)


def built_precision(kernels: Iterable[Kernel]) -> Precision:
    """Return the precision that a graph was built in, by its kernels with all optimisation off.

    A graph with quantisation operators is int8. Else a graph with half or bfloat16 tensors is fp16
    or bf16, even if a kernel for them is missing and the runtime casts back.
    """
    kernels = list(kernels)
    if any(k.op in QUANTISATION_OPS or (k.op in HEAVY_OPS and is_int8(k)) for k in kernels):
        return "int8"
    dtypes = {dtype for kernel in kernels for dtype in kernel.dtypes}
    for dtype in ("float16", "bfloat16"):
        if dtype in dtypes:
            return cast("Precision", FLOATS[dtype])
    return "fp32"


def is_int8(kernel: Kernel) -> bool:
    """Whether a kernel multiplies 8-bit integers."""
    return arithmetic(kernel) == "int8"


def describe_precision(counts: Mapping[str, int], built: str) -> str:
    """Describe in one phrase what ran, for a model built in a precision.

    Examples
    --------
    >>> describe_precision({"fp32": 51}, "fp32"), describe_precision({"fp32": 51}, "fp16")
    ('fp32', 'fp32 (fp16 weights)')
    >>> describe_precision({"int8": 36, "fp32": 15}, "int8")
    'int8 (36 of 51 kernels; 15 fp32)'
    """
    if not counts:
        return "unknown"
    if len(counts) == 1:
        (ran,) = counts
        return ran if ran == built else f"{ran} ({built} weights)"
    total = sum(counts.values())
    main = built if built in counts else max(counts, key=lambda name: counts[name])
    order = [*PRECISIONS, *(name for name in counts if name not in PRECISIONS)]
    rest = (name for name in order if name in counts and name != main)
    others = ", ".join(f"{counts[name]} {name}" for name in rest)
    return f"{main} ({counts[main]} of {total} kernels; {others})"
