"""Caffe models by OpenCV's importer, which its 4.x series still has: the CPU only.

A model is two files of one stem, ``NAME.prototxt`` and ``NAME.caffemodel``; either names both.
OpenCV computes in fp32. Its fp16 target exists on ARM; elsewhere OpenCV falls back to fp32 without
a word, so that fp16 is offered only where OpenCV lists the target.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import (
    Backend,
    Precision,
    Probe,
    Ran,
    Session,
    SessionOptions,
    TensorInfo,
)
from evalkit.backends.prototxt import InputShape, read_inputs
from evalkit.backends.tensors import (
    check_batch,
    check_file,
    check_offered,
    check_one_input,
    first_line,
)
from evalkit.core.errors import InputError
from evalkit.core.machine import available_cores

SUFFIXES = (".prototxt", ".caffemodel")
_THREADS = threading.Lock()  # OpenCV's number of threads is the process's


class CaffeBackend(Backend):
    """Caffe models by OpenCV's DNN module."""

    name: ClassVar[str] = "caffe"

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
        precisions: tuple[Precision, ...] = ("fp32", "fp16") if _has_fp16() else ("fp32",)
        return Probe(True, cv2.__version__, ("cpu",), precisions)

    @classmethod
    def open(cls, model: Path, options: SessionOptions) -> Session:
        """See `Backend.open`.

        Raises
        ------
        evalkit.core.errors.InputError
            Besides: the other file of the pair is missing, or the network has several inputs.
        """
        check_offered(cls.name, cls.probe(), options.device, options.precision)
        return CaffeSession(model, options)


class CaffeSession(Session):
    """One Caffe network; see `Session`.

    Parameters
    ----------
    model : Path
        Its ``.prototxt`` or ``.caffemodel``.
    options : SessionOptions
        Checked against the probe already.
    """

    def __init__(self, model: Path, options: SessionOptions) -> None:
        self.model = model
        self.threads = options.threads or available_cores()
        half = options.precision == "fp16"
        network, weights = (_beside(model, suffix) for suffix in SUFFIXES)
        given = _only_input(network)
        self.inputs = (TensorInfo(given.name, "float32", ("n", *given.shape[1:])),)
        self._net: Any = _load(network, weights)
        self._net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
        self._net.setPreferableTarget(
            cv2.dnn.DNN_TARGET_CPU_FP16 if half else cv2.dnn.DNN_TARGET_CPU
        )
        self._names = list(self._net.getUnconnectedOutLayersNames())
        self.outputs = tuple(
            TensorInfo(name, "float32", ("n", *value.shape[1:]))
            for name, value in self.run(np.zeros((1, *given.shape[1:]), np.float32)).items()
        )
        self.ran = Ran(
            backend=CaffeBackend.name,
            version=cv2.__version__,
            device="cpu",
            precision_requested=options.precision,
            precision_ran=options.precision,
            threads=self.threads,
            details={
                "target": "DNN_TARGET_CPU_FP16" if half else "DNN_TARGET_CPU",
                "layers": len(self._net.getLayerNames()),
                "fusion": True,
                "winograd": True,
            },
        )

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """See `Session.run`."""
        if self._net is None:
            raise InputError(f"The session of {self.model} is closed; open the model again.")
        (info,) = self.inputs
        given = check_batch(batch, info, self.model)
        try:
            with _opencv_threads(self.threads):
                self._net.setInput(given)
                values = self._net.forward(self._names)
        except cv2.error as error:
            raise InputError(
                f"{self.model}: OpenCV cannot run a batch of shape {batch.shape}: {_cause(error)}. "
                "Give the size that the network was made for, or a smaller batch."
            ) from error
        # OpenCV hands out its own memory, which the next run writes to.
        return {name: np.array(v) for name, v in zip(self._names, values, strict=True)}

    def close(self) -> None:
        """See `Session.close`."""
        self._net = None


def _has_fp16() -> bool:
    targets = cv2.dnn.getAvailableTargets(cv2.dnn.DNN_BACKEND_OPENCV)
    arm = platform.machine().lower() in {"aarch64", "arm64"}
    return arm and cv2.dnn.DNN_TARGET_CPU_FP16 in targets


def _beside(model: Path, suffix: str) -> Path:
    """Return the file of a pair by its suffix."""
    if model.suffix not in SUFFIXES:
        raise InputError(
            f"{model} is no Caffe model: name its .prototxt or .caffemodel, both of one stem."
        )
    check_file(model)
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
    try:
        return cv2.dnn.readNetFromCaffe(str(network), str(weights))
    except cv2.error as error:
        raise InputError(
            f"{network} with {weights.name}: OpenCV {cv2.__version__} cannot load them: "
            f"{_cause(error)}. Check that both are of one network and whole, and that OpenCV "
            "knows every layer."
        ) from error


def _cause(error: cv2.error) -> str:
    """Return what OpenCV says, without its place in OpenCV's source."""
    return first_line(Exception(getattr(error, "err", "") or str(error)))


@contextmanager
def _opencv_threads(count: int) -> Iterator[None]:
    with _THREADS:
        held = cv2.getNumThreads()
        cv2.setNumThreads(count)
        try:
            yield
        finally:
            cv2.setNumThreads(held)
