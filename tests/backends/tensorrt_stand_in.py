"""Stand-ins for TensorRT and pycuda, to test the steps that the session and the builder take.

They imitate what the documentation says of the calls, check their order, and compute
``2 * x + 1`` on the mean of each channel. They say nothing of TensorRT itself.
"""

from __future__ import annotations

import json
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np

PLAN = b"stand-in plan " * 8
SHAPE = (-1, 3, 16, 16)
LIMITS = ((1, 3, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16))
FP32 = {"LayerType": "conv", "Inputs": [{"DataType": "Float"}]}
memory: dict[int, np.ndarray] = {}
contexts: list[str] = []


class Allocation:
    def __init__(self, size: int) -> None:
        assert contexts, "no context is current"
        self.address = 4096 * (1 + max((k // 4096 for k in memory), default=0))
        memory[self.address] = np.zeros(size, np.uint8)

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        assert contexts, "no context is current"
        del memory[self.address]


class Context:
    def push(self) -> None:
        contexts.append("primary")

    def pop(self) -> None:
        contexts.pop()

    def detach(self) -> None:
        assert not contexts


class Stream:
    handle = 77

    def synchronize(self) -> None:
        assert contexts


def upload(device: Allocation, host: np.ndarray, stream: Stream) -> None:
    memory[int(device)][: host.nbytes] = host.reshape(-1).view(np.uint8)


def download(host: np.ndarray, device: Allocation, stream: Stream) -> None:
    host.reshape(-1).view(np.uint8)[:] = memory[int(device)][: host.nbytes]


def pycuda_driver() -> ModuleType:
    device = SimpleNamespace(
        name=lambda: "Stand-in GPU",
        compute_capability=lambda: (9, 0),
        retain_primary_context=Context,
    )
    module = ModuleType("pycuda.driver")
    vars(module).update(
        init=lambda: None,
        Device=lambda index: device,
        Stream=Stream,
        mem_alloc=Allocation,
        pagelocked_empty=np.empty,
        memcpy_htod_async=upload,
        memcpy_dtoh_async=download,
    )
    return module


class ILogger:
    Severity = SimpleNamespace(ERROR="error", INTERNAL_ERROR="internal", WARNING="warning")


class Execution:
    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}
        self.batch: tuple[int, ...] = ()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.batch = tuple(shape)
        return name == "image"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self.batch, "the input's shape is set first"
        return (self.batch[0], 3)

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address in memory
        self.addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        assert handle == Stream.handle
        assert set(self.addresses) == {"image", "embedding"}
        given = memory[self.addresses["image"]].view(np.float32)
        images = given[: int(np.prod(self.batch))].reshape(self.batch)
        made = (2 * images.mean((2, 3)) + 1).astype(np.float32).reshape(-1)
        memory[self.addresses["embedding"]].view(np.float32)[: made.size] = made
        return True


class Engine:
    num_io_tensors = 2

    def __init__(self, layers: list[Any]) -> None:
        self.layers = layers

    def get_tensor_name(self, index: int) -> str:
        return ("image", "embedding")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "image" else "output"

    def get_tensor_dtype(self, name: str) -> str:
        return "float"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return SHAPE if name == "image" else (-1, 3)

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        assert (name, index) == ("image", 0)
        return list(LIMITS)

    def create_execution_context(self) -> Execution:
        return Execution()

    def create_engine_inspector(self) -> Any:
        return SimpleNamespace(get_engine_information=lambda form: json.dumps(self._told()))

    def _told(self) -> dict[str, Any]:
        return {"Layers": self.layers}


class Runtime:
    layers: ClassVar[list[Any]] = [FP32]

    def __init__(self, logger: Any) -> None:
        self.logger = logger
        self.engine_host_code_allowed: bool | None = None

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        assert self.engine_host_code_allowed is not None, "trust is settled first"
        if plan != PLAN:
            self.logger.log(ILogger.Severity.ERROR, "Magic tag does not match")
            return None
        return Engine(self.layers)


class Parser:
    num_errors = 0

    def __init__(self, network: Any, logger: Any) -> None:
        self.told: list[str] = []

    def parse_from_file(self, path: str) -> bool:
        if "unknown" in path:
            self.told, self.num_errors = ["No importer registered for op: Frobnicate."], 1
        return not self.told

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: self.told[index])


class Config:
    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}
        self.profiling_verbosity: str | None = None

    def clear_flag(self, flag: str) -> None:
        self.seen["cleared"] = flag

    def add_optimization_profile(self, profile: Any) -> int:
        self.seen["profile"] = profile.shapes
        return 0

    def create_timing_cache(self, content: bytes) -> Any:
        self.seen["timing"] = content
        return SimpleNamespace(serialize=lambda: content + b"t")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return not ignore_mismatch

    def get_timing_cache(self) -> Any:
        return self.cache


class Profile:
    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        assert len(shapes) == 3
        self.shapes = {name: shapes}


class Builder:
    built: ClassVar[list[Config]] = []

    def __init__(self, logger: Any) -> None:
        assert hasattr(logger, "errors")

    def create_network(self, flags: int) -> Any:
        self.flags = flags
        tensor = SimpleNamespace(name="image", shape=SHAPE)
        return SimpleNamespace(num_inputs=1, get_input=lambda index: tensor)

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Any, config: Config) -> bytes:
        self.built.append(config)
        return PLAN


def nptype(kind: str) -> type[np.generic]:
    return {"float": np.float32}[kind]


def tensorrt() -> ModuleType:
    module = ModuleType("tensorrt")
    vars(module).update(
        __version__="11.4.0.106",
        ILogger=ILogger,
        Runtime=Runtime,
        Builder=Builder,
        OnnxParser=Parser,
        TensorIOMode=SimpleNamespace(INPUT="input", OUTPUT="output"),
        LayerInformationFormat=SimpleNamespace(JSON="json"),
        ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"),
        BuilderFlag=SimpleNamespace(TF32="tf32"),
        nptype=nptype,
    )
    return module
