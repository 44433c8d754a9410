"""ONNX Runtime's CUDA and TensorRT providers: their settings, and batches by IO binding.

Written against the names of ONNX Runtime 1.31; not run on hardware.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from evalkit.backends.base import SessionOptions
from evalkit.backends.tensors import cuda_index
from evalkit.core.errors import UnavailableError, install_command
from evalkit.core.files import cache_dir

PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


def providers(options: SessionOptions) -> list[Any]:
    """List the providers that a session asks for, with their settings, the best first."""
    device = cuda_index(options.device)
    if device is None:
        return ["CPUExecutionProvider"]
    # TF32 would run fp32 convolutions with ten bits of mantissa.
    cuda = (PROVIDERS["cuda"], {"device_id": str(device), "use_tf32": "0"})
    if options.provider != "tensorrt":
        return [cuda]
    folder = str(cache_dir() / "onnxruntime-tensorrt")
    tensorrt = {
        "device_id": str(device),
        "trt_fp16_enable": str(int(options.precision == "fp16")),
        "trt_int8_enable": str(int(options.precision == "int8")),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
    }
    return [(PROVIDERS["tensorrt"], tensorrt), cuda]


def provider_of(options: SessionOptions) -> str:
    """Name the provider that must run a session."""
    if cuda_index(options.device) is None:
        return "CPUExecutionProvider"
    return PROVIDERS[options.provider or "cuda"]


def check_provider(options: SessionOptions) -> None:
    """Check that this package has the provider, and that the device is a GPU.

    Raises
    ------
    evalkit.core.errors.UnavailableError
        The provider cannot run here.
    """
    if options.provider is None:
        return
    if cuda_index(options.device) is None:
        raise UnavailableError(
            f"The provider {options.provider!r} runs on a GPU, and the device is {options.device}. "
            "Choose --device cuda, or leave 'provider' out under 'runtime' in the model's YAML."
        )
    if provider_of(options) not in ort.get_available_providers():
        raise UnavailableError(
            f"This ONNX Runtime was built without {provider_of(options)}. Run: pip uninstall -y "
            f"onnxruntime, then {install_command('gpu')}."
        )


def check_fell_back(options: SessionOptions, actual: list[str]) -> None:
    """Check that the runtime did not fall back to a lesser provider, which it does silently.

    Parameters
    ----------
    options : SessionOptions
    actual : list of str
        The providers that the session reports.

    Raises
    ------
    evalkit.core.errors.UnavailableError
        The requested provider is not among them.
    """
    if provider_of(options) not in actual:
        brings = "CUDA, cuDNN and TensorRT" if options.provider == "tensorrt" else "CUDA and cuDNN"
        raise UnavailableError(
            f"ONNX Runtime fell back from {provider_of(options)} to {', '.join(actual)}. Install "
            f"the {brings} versions that this onnxruntime-gpu was built for, or choose --device "
            "cpu."
        )


class BoundSession:
    """Runs a session with its input and outputs bound to a device's memory.

    Without binding, every run allocates device memory again.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
    device : str
        ONNX Runtime's name: ``cuda`` or ``cpu``.
    index : int
        Of the device.
    """

    def __init__(self, session: Any, device: str, index: int) -> None:
        self._session = session
        self._place = (device, index)
        self._binding = session.io_binding()
        self._input: Any = None
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, name: str, batch: NDArray[Any]) -> list[NDArray[Any]]:
        """Copy a contiguous batch to the device, run, and copy the outputs back, in their order."""
        value = self._input
        fits = value is not None and tuple(value.shape()) == batch.shape
        if fits and value.numpy().dtype == batch.dtype:
            value.update_inplace(batch)
        else:
            self._input = value = ort.OrtValue.ortvalue_from_numpy(batch, *self._place)
        self._binding.clear_binding_inputs()
        self._binding.bind_ortvalue_input(name, value)
        self._binding.clear_binding_outputs()
        for output in self._outputs:
            self._binding.bind_output(output, *self._place)
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        return [np.array(value) for value in self._binding.copy_outputs_to_cpu()]
