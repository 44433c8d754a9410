"""From ONNX to a TensorRT engine: strongly typed, so that the graph alone decides the precision.

An fp16 engine comes from an fp16 graph, an int8 engine from explicit QDQ; precision flags and
calibrators are not used. Written for TensorRT 10 and 11; tests check its names against their Python
bindings. Not run on a GPU.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.backends.base import TensorInfo
from evalkit.backends.onnx_files import check_external_data, external_data
from evalkit.backends.tensorrt import layers
from evalkit.backends.tensors import check_one_input
from evalkit.core.errors import InputError
from evalkit.core.files import atomic_write, cache_dir, sha256_file, sha256_json

TRUST = "EVALKIT_TRUST_ENGINES"
_ALWAYS_TYPED = 11  # from this version on networks are strongly typed without asking


class _Parsed(NamedTuple):
    """A parsed ONNX model; the parser owns weights that the network points to."""

    builder: Any
    network: Any
    parser: Any
    shapes: layers.Shapes
    errors: list[str]


def bindings() -> Any:
    """Import TensorRT's Python module.

    Raises
    ------
    ImportError
        It, or a library that it needs, is not installed.
    """
    return importlib.import_module("tensorrt")


def make_logger(trt: Any) -> Any:
    """Return a logger that collects messages in ``errors`` and prints nothing."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(msg)

    return Log()


def build_engine(model: Path, gpu: str, image: tuple[int, int, int] | None) -> bytes:
    """Build, with the timing cache of this kind of GPU; the device's context must be current.

    Parameters
    ----------
    model : Path
        The ONNX file.
    gpu : str
        Kind of GPU, for the timing cache.
    image : tuple of int or None
        Sizes of one input, where the file leaves them open.

    Raises
    ------
    evalkit.core.errors.InputError
        TensorRT cannot build the model.
    """
    return _build(_parse(model, image), model, gpu)


def cached_engine(model: Path, gpu: str, image: tuple[int, int, int] | None) -> bytes:
    """Build an engine, or read the one of the same model, GPU and shapes from the cache."""
    digest = _digest(model)
    parsed = _parse(model, image)
    key = layers.engine_key(digest, gpu, bindings().__version__, parsed.shapes)
    file = cache_dir() / "tensorrt" / f"{key}.engine"
    if file.is_file():
        return file.read_bytes()
    plan = _build(parsed, model, gpu)
    with atomic_write(file) as out:
        out.write(plan)
    return plan


def load_engine(trt: Any, logger: Any, plan: bytes, model: Path, gpu: str) -> tuple[Any, Any]:
    """Return the runtime and the engine of a plan.

    Raises
    ------
    evalkit.core.errors.InputError
        TensorRT cannot load it: it is of another GPU or version, or damaged.
    """
    runtime = trt.Runtime(logger)
    # A version-compatible plan contains native code.
    runtime.engine_host_code_allowed = os.environ.get(TRUST) == "1"
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise InputError(layers.refused_engine(model, trt.__version__, gpu, logger.errors))
    return runtime, engine


def _parse(model: Path, image: tuple[int, int, int] | None) -> _Parsed:
    trt = bindings()
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise InputError(layers.refused_graph(model, trt.__version__, errors))
    check_one_input([network.get_input(i).name for i in range(network.num_inputs)], model)
    tensor = network.get_input(0)
    sizes = tuple(int(size) if size >= 0 else None for size in tensor.shape)
    shapes = layers.profile_shapes(TensorInfo(tensor.name, "float32", sizes), image)
    return _Parsed(builder, network, parser, shapes, logger.errors)


def _build(parsed: _Parsed, model: Path, gpu: str) -> bytes:
    trt, builder, network = bindings(), parsed.builder, parsed.network
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # records each layer's precision
    config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, *parsed.shapes)
    config.add_optimization_profile(profile)
    file = cache_dir() / "tensorrt" / f"timing-{gpu}-{trt.__version__}.cache"
    cache = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise InputError(layers.refused_graph(model, trt.__version__, parsed.errors))
    with atomic_write(file) as out:
        out.write(bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _network_flags(trt: Any) -> int:
    """Return the flag for a strongly typed network, where the version has other networks too."""
    major = str(trt.__version__).split(".", 1)[0]
    if int(major) >= _ALWAYS_TYPED:
        return 0
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _digest(model: Path) -> str:
    """Hash a model with the files that hold its weights.

    Raises
    ------
    evalkit.core.errors.InputError
        One of them is missing or outside the model's folder.
    """
    check_external_data(model, model.read_bytes())
    beside = sorted({data.file(model) for data in external_data(model)})
    return sha256_json([sha256_file(file) for file in (model, *beside)])
