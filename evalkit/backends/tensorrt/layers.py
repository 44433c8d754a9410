"""TensorRT's engines without TensorRT: layers, profiles, cache keys, messages.

NVIDIA's documentation of the engine inspector describes the layer information: TensorRT 10 has
``Format/Datatype`` of each tensor, TensorRT 11 ``DataType`` and ``Format``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalkit.backends.base import Precision, TensorInfo
from evalkit.backends.kernels import Kernel
from evalkit.backends.tensors import trial_shapes
from evalkit.core.errors import InputError
from evalkit.core.files import sha256_json

BEST_BATCH = 32  # kernels are chosen for it
MOST_BATCH = 64
RECIPE = 1  # raise it when a change here makes other engines of the same model
Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

_HEAVY = {
    "Conv": re.compile(r"conv", re.IGNORECASE),
    "MatMul": re.compile(r"gemm|matmul|matrix_?multiply|fully_?connected", re.IGNORECASE),
    "MultiHeadAttention": re.compile(r"mha|attention", re.IGNORECASE),
}
# The order matters: "BFloat16" contains "Float". "Half" and "FP16" mean the same.
_DTYPES = (
    (re.compile(r"bf16|bfloat16", re.IGNORECASE), "bfloat16"),
    (re.compile(r"fp16|half|float16", re.IGNORECASE), "float16"),
    (re.compile(r"fp8|float8", re.IGNORECASE), "fp8"),
    (re.compile(r"int8", re.IGNORECASE), "int8"),
    (re.compile(r"fp32|float", re.IGNORECASE), "float32"),
)


def layer_kernels(information: str) -> list[Kernel]:
    """Read the layers of an engine.

    Parameters
    ----------
    information : str
        JSON of ``EngineInspector.get_engine_information``. An engine built without detailed
        profiling verbosity lists names only, and gives no kernels.

    Returns
    -------
    list of Kernel
        Convolutions and products under ONNX's names, the rest under TensorRT's.

    Examples
    --------
    >>> layer_kernels('{"Layers": [{"LayerType": "gemm", "Inputs": [{"DataType": "Half"}]}]}')
    [Kernel(op='MatMul', provider='TensorRT', dtypes=('float16',))]
    """
    try:
        layers = json.loads(information)["Layers"]
    except (ValueError, KeyError, TypeError):
        return []
    return [_kernel(layer) for layer in layers if isinstance(layer, Mapping)]


def _kernel(layer: Mapping[str, Any]) -> Kernel:
    kind = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}"
    reformats = re.search(r"reformat|convert", kind, re.IGNORECASE)
    heavy = (op for op, pattern in _HEAVY.items() if not reformats and pattern.search(kind))
    dtypes = list(_dtypes(layer))
    if dtypes[:1] == ["float32"] and "tf32" in str(layer.get("TacticName", "")).lower():
        dtypes[0] = "tf32"
    return Kernel(next(heavy, str(layer.get("LayerType", ""))), "TensorRT", tuple(dtypes))


def _dtypes(layer: Mapping[str, Any]) -> Iterator[str]:
    for tensor in layer.get("Inputs") or ():
        if isinstance(tensor, Mapping):
            values = (tensor.get(key) for key in ("DataType", "Format/Datatype", "Format"))
            text = next((str(value) for value in values if value), "")
            yield next((name for pattern, name in _DTYPES if pattern.search(text)), text)


def engine_precision(counts: Mapping[str, int]) -> Precision | None:
    """Return the lowest precision at which an engine multiplies.

    Examples
    --------
    >>> engine_precision({"int8": 40, "fp16": 3}), engine_precision({"tf32": 5})
    ('int8', None)
    """
    lowest_first: tuple[Precision, ...] = ("int8", "fp16", "bf16", "fp32")
    return next((name for name in lowest_first if name in counts), None)


def check_label(model: Path, counts: Mapping[str, int], requested: Precision) -> None:
    """Check that an engine runs at the requested precision; one without layer information passes.

    Raises
    ------
    evalkit.core.errors.InputError
        Its convolutions and products run in another precision.
    """
    label = engine_precision(counts)
    if not counts or label == requested:
        return
    runs = ", ".join(f"{count} in {name}" for name, count in counts.items())
    ask = f"Ask for --precision {label}, or build" if label else "Build"
    graph = {
        "fp32": "from the fp32 ONNX model, without TF32",
        "fp16": "from a model of python -m evalkit convert MODEL --to fp16 --backend tensorrt",
        "int8": "from a model of python -m evalkit convert MODEL --to int8 --backend tensorrt",
        "bf16": "from a bf16 ONNX model",
    }
    raise InputError(
        f"{model}: its convolutions and products run {runs}, but {requested} was asked for. "
        f"{ask} the engine {graph[requested]}."
    )


def profile_shapes(info: TensorInfo, image: tuple[int, int, int] | None) -> Shapes:
    """Choose the smallest, likeliest and largest batch that an engine is built for.

    Examples
    --------
    >>> profile_shapes(TensorInfo("x", "float32", ("n", 3, 112, 112)), None)
    ((1, 3, 112, 112), (32, 3, 112, 112), (64, 3, 112, 112))
    >>> profile_shapes(TensorInfo("x", "float32", (8, 3, 112, 112)), None)[0]
    (8, 3, 112, 112)
    """
    first = trial_shapes(info, image)[0]
    if info.batch is not None:
        return first, first, first
    rest = first[1:]
    return (1, *rest), (BEST_BATCH, *rest), (MOST_BATCH, *rest)


def check_profile(model: Path, shape: tuple[int, ...], smallest: Any, largest: Any) -> None:
    """Check that a batch lies within the engine's profile.

    Raises
    ------
    evalkit.core.errors.InputError
        A size lies outside.
    """
    inside = zip(smallest, shape, largest, strict=True)
    if not all(low <= size <= high for low, size, high in inside):
        raise InputError(
            f"{model}: the engine was built for batches from {tuple(smallest)} to "
            f"{tuple(largest)}, given {shape}. Choose a --batch-size within, or build it again."
        )


def engine_key(model_sha256: str, gpu: str, version: str, shapes: Shapes) -> str:
    """Return the cache key of an engine, made of the model, GPU, TensorRT version and profile."""
    return sha256_json([RECIPE, model_sha256, gpu, version, shapes])


def gpu_key(name: str, capability: tuple[int, int]) -> str:
    """Return a name of a kind of GPU that a file name can have.

    Examples
    --------
    >>> gpu_key("NVIDIA H200", (9, 0))
    'nvidia-h200-sm90'
    """
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{plain}-sm{capability[0]}{capability[1]}"


def refused_engine(model: Path, version: str, gpu: str, errors: list[str]) -> str:
    """Return the message for an engine that TensorRT cannot load."""
    cause = f": {errors[0].rstrip('.')}" if errors else ""
    return (
        f"{model} is no engine for TensorRT {version} on {gpu}{cause}. An engine runs only on the "
        "kind of GPU and the version that built it: build it again here, python -m evalkit "
        "convert MODEL.onnx --to fp16 --backend tensorrt, or give the ONNX model. Engines that "
        "contain a runtime (version-compatible ones) hold native code and need "
        "EVALKIT_TRUST_ENGINES=1."
    )


def refused_graph(model: Path, version: str, errors: list[str]) -> str:
    """Return the message for an ONNX model that TensorRT cannot build."""
    causes = "; ".join(line.rstrip(".") for line in errors[:3]) or "it gives no reason"
    return (
        f"{model}: TensorRT {version} cannot build it: {causes}. Export it with operators and an "
        "opset that this version knows, or run it with --backend onnxruntime."
    )
