"""From ONNX to a TensorRT engine: strongly typed, so that the graph alone decides the precision.

An fp16 engine comes from an fp16 graph, int8 from explicit QDQ; there are no precision flags and no
calibrators. Written for TensorRT 10 and 11, and checked against the names in their Python
bindings; not run on a GPU.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from evalkit.backends.base import TensorInfo
from evalkit.backends.onnx_files import check_external_data, external_data
from evalkit.backends.tensorrt.layers import (
    Shapes,
    engine_key,
    profile_shapes,
    refused_engine,
    refused_graph,
)
from evalkit.backends.tensors import check_one_input
from evalkit.core.errors import InputError
from evalkit.core.files import atomic_write, cache_dir, sha256_file, sha256_json

TRUST = "EVALKIT_TRUST_ENGINES"
_ALWAYS_TYPED = 11  # from this version on networks are strongly typed without asking


def bindings() -> Any:
    """TensorRT's Python module.

    Raises
    ------
    ImportError
        It, or a library that it needs, is not installed.
    """
    return importlib.import_module("tensorrt")


def make_logger(trt: Any) -> Any:
    """Give a logger that keeps errors in ``told`` and prints nothing."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.told: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.told.append(msg)

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
        TensorRT does not take the model.
    """
    trt = bindings()
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network, parser = _parsed(trt, builder, model, logger)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # tells what each layer runs in
    config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, *_shapes(trt, network, model, image))
    config.add_optimization_profile(profile)
    file = cache_dir() / "tensorrt" / f"timing-{gpu}-{trt.__version__}.cache"
    cache = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise InputError(refused_graph(model, trt.__version__, logger.told))
    with atomic_write(file) as out:
        out.write(bytes(config.get_timing_cache().serialize()))
    del parser  # it holds the weights that the network only points to
    return bytes(plan)


def cached_engine(model: Path, gpu: str, image: tuple[int, int, int] | None) -> bytes:
    """Build, or read what was built of the same model on the same kind of GPU."""
    trt = bindings()
    digest = _digest(model)
    logger = make_logger(trt)
    network, _ = _parsed(trt, trt.Builder(logger), model, logger)
    shapes = _shapes(trt, network, model, image)
    key = engine_key(digest, gpu, trt.__version__, shapes)
    file = cache_dir() / "tensorrt" / f"{key}.engine"
    if file.is_file():
        return file.read_bytes()
    plan = build_engine(model, gpu, image)
    with atomic_write(file) as out:
        out.write(plan)
    return plan


def load_engine(trt: Any, logger: Any, plan: bytes, model: Path, gpu: str) -> tuple[Any, Any]:
    """Give the runtime and the engine of a plan.

    Raises
    ------
    evalkit.core.errors.InputError
        TensorRT does not take it: another GPU or version, or a damaged file.
    """
    runtime = trt.Runtime(logger)
    # A version-compatible plan brings native code of its own.
    runtime.engine_host_code_allowed = os.environ.get(TRUST) == "1"
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise InputError(refused_engine(model, trt.__version__, gpu, logger.told))
    return runtime, engine


def _parsed(trt: Any, builder: Any, model: Path, logger: Any) -> tuple[Any, Any]:
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        told = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise InputError(refused_graph(model, trt.__version__, told))
    check_one_input([network.get_input(i).name for i in range(network.num_inputs)], model)
    return network, parser


def _network_flags(trt: Any) -> int:
    """Ask for a strongly typed network where that is not all there is."""
    major = str(trt.__version__).split(".", 1)[0]
    if int(major) >= _ALWAYS_TYPED:
        return 0
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _shapes(trt: Any, network: Any, model: Path, image: tuple[int, int, int] | None) -> Shapes:
    tensor = network.get_input(0)
    sizes = tuple(int(size) if size >= 0 else None for size in tensor.shape)
    return profile_shapes(TensorInfo(tensor.name, "float32", sizes), image)


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
