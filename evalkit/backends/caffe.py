"""Caffe models by OpenCV's importer, on the CPU. OpenCV 5 has no such importer.

A model is two files of one stem, ``NAME.prototxt`` and ``NAME.caffemodel``; either names both.
OpenCV computes in fp32. Its fp16 target exists on ARM; elsewhere OpenCV falls back to fp32 and says
nothing. So fp16 is offered only where OpenCV lists the target.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import Precision, Probe, SessionOptions, TensorInfo
from evalkit.backends.prototxt import InputShape, read_inputs
from evalkit.backends.session import ModelBackend, ModelSession
from evalkit.backends.tensors import check_file, check_one_input, explained, first_line
from evalkit.core.errors import InputError

SUFFIXES = (".prototxt", ".caffemodel")
_THREADS = threading.Lock()  # OpenCV's number of threads is the process's


def _cause(error: BaseException) -> str:
    """Return OpenCV's message without the place in OpenCV's source."""
    return first_line(Exception(getattr(error, "err", "") or str(error)))


class CaffeSession(ModelSession):
    """One Caffe network; see `ModelSession`.

    Raises
    ------
    evalkit.core.errors.InputError
        The other file of the pair is missing, or the network has several inputs.
    """

    backend = "caffe"
    runtime = "OpenCV"
    failures = (cv2.error,)
    cause = staticmethod(_cause)

    def __init__(self, model: Path, options: SessionOptions) -> None:
        super().__init__(model, options)
        network, weights = (_beside(model, suffix) for suffix in SUFFIXES)
        image = _only_input(network)
        self.inputs = (TensorInfo(image.name, "float32", ("n", *image.shape[1:])),)
        self._net: Any = _load(network, weights)
        self._net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
        target = "DNN_TARGET_CPU_FP16" if options.precision == "fp16" else "DNN_TARGET_CPU"
        self._net.setPreferableTarget(getattr(cv2.dnn, target))
        self._names = list(self._net.getUnconnectedOutLayersNames())
        values = self._attempt(np.zeros((1, *image.shape[1:]), np.float32))
        self.outputs = tuple(
            TensorInfo(name, "float32", ("n", *value.shape[1:]))
            for name, value in zip(self._names, values, strict=True)
        )
        layers = len(self._net.getLayerNames())
        details = {"target": target, "layers": layers, "fusion": True, "winograd": True}
        self.ran = self._record(cv2.__version__, options.precision, details, threads=self.threads)

    def _compute(self, batch: NDArray[Any]) -> Iterable[Any]:
        with _opencv_threads(self.threads):
            self._net.setInput(batch)
            # OpenCV returns its own memory, which the next run writes to.
            return [np.array(value) for value in self._net.forward(self._names)]

    def _release(self) -> None:
        self._net = None


class CaffeBackend(ModelBackend):
    """Caffe models by OpenCV's DNN module."""

    name: ClassVar[str] = "caffe"
    session = CaffeSession

    @classmethod
    def probe(cls) -> Probe:
        """See `Backend.probe`: OpenCV 5 has no importer for Caffe."""
        if not hasattr(cv2.dnn, "readNetFromCaffe"):
            return Probe(
                available=False,
                version=cv2.__version__,
                reason=f"OpenCV {cv2.__version__} reads no Caffe models.",
                remedy="Run: pip install 'opencv-python-headless<5'.",
            )
        arm = platform.machine().lower() in {"aarch64", "arm64"}
        targets = cv2.dnn.getAvailableTargets(cv2.dnn.DNN_BACKEND_OPENCV)
        half = arm and cv2.dnn.DNN_TARGET_CPU_FP16 in targets
        precisions: tuple[Precision, ...] = ("fp32", "fp16") if half else ("fp32",)
        return Probe(True, cv2.__version__, ("cpu",), precisions)


def _beside(model: Path, suffix: str) -> Path:
    """Return the file of a pair by its suffix."""
    if model.suffix not in SUFFIXES:
        raise InputError(
            f"{model} is no Caffe model. Give its .prototxt or .caffemodel; both have one stem."
        )
    file = model.with_suffix(suffix)
    if not file.is_file():
        raise InputError(f"{model} needs {file.name} beside it. Put it there, under that name.")
    check_file(file)
    return file


def _only_input(network: Path) -> InputShape:
    inputs = read_inputs(network)
    check_one_input([item.name for item in inputs], network)
    if len(inputs[0].shape) != 4:
        raise InputError(
            f"{network}: the input {inputs[0].name!r} has the shape {inputs[0].shape}; an image "
            "has four dimensions (input_shape { dim: 1 dim: 3 dim: 112 dim: 112 })."
        )
    return inputs[0]


def _load(network: Path, weights: Path) -> Any:
    action = f"{network} with {weights.name}: OpenCV {cv2.__version__} cannot load them"
    remedy = "Check that both are complete and of one network, and that OpenCV knows every layer."
    with explained(action, remedy, cv2.error, _cause):
        return cv2.dnn.readNetFromCaffe(str(network), str(weights))


@contextmanager
def _opencv_threads(count: int) -> Iterator[None]:
    with _THREADS:
        before = cv2.getNumThreads()
        cv2.setNumThreads(count)
        try:
            yield
        finally:
            cv2.setNumThreads(before)
