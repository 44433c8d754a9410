"""From kernels to a precision, and the small rules that sessions share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.backends.base import TensorInfo
from evalkit.backends.kernels import (
    Kernel,
    built_precision,
    count_arithmetic,
    describe_precision,
    read_onnxruntime_profile,
)
from evalkit.backends.tensors import check_batch, cuda_index, float32_outputs, trial_shapes
from evalkit.core.errors import InputError, UnavailableError

CPU = "CPUExecutionProvider"
MODEL = Path("model.onnx")


def kernel(op: str, *dtypes: str) -> Kernel:
    return Kernel(op, CPU, dtypes)


def test_profile_keeps_kernels_alone() -> None:
    args = {"op_name": "Conv", "provider": CPU, "input_type_shape": [{"float": [1]}, {}]}
    events: list[dict[str, Any]] = [
        {"cat": "Session", "name": "model_run", "args": {}},
        {"cat": "Node", "name": "c_fence_before", "args": {}},
        {"cat": "Node", "name": "c_kernel_time", "args": args},
    ]
    assert read_onnxruntime_profile(events) == [Kernel("Conv", CPU, ("float", ""))]


@pytest.mark.parametrize(
    ("kernels", "built"),
    [
        ([kernel("Conv", "float"), kernel("Reshape", "float", "int64")], "fp32"),
        ([kernel("Cast", "float16"), kernel("Conv", "float")], "fp16"),
        ([kernel("Conv", "bfloat16")], "bf16"),
        ([kernel("DequantizeLinear", "int8"), kernel("Conv", "float")], "int8"),
        ([kernel("ConvInteger", "uint8")], "int8"),
        ([kernel("Cast", "uint8"), kernel("Conv", "float")], "fp32"),
        ([kernel("DequantizeLinear", "int8"), kernel("Conv", "float16")], "int8"),
    ],
)
def test_built_precision(kernels: list[Kernel], built: str) -> None:
    assert built_precision(kernels) == built


def test_arithmetic_is_that_of_the_heavy_kernels() -> None:
    kernels = [kernel("Conv", "float"), kernel("QLinearConv", "uint8"), kernel("Relu", "float16")]
    assert count_arithmetic(kernels) == {"fp32": 1, "int8": 1}


def test_network_without_products_is_judged_by_the_rest() -> None:
    kernels = [kernel("Cast", "float16"), kernel("Add", "float"), kernel("Shape", "int64")]
    assert count_arithmetic(kernels) == {"fp32": 1}


@pytest.mark.parametrize(
    ("counts", "built", "text"),
    [
        ({}, "fp32", "unknown"),
        ({"fp32": 5}, "int8", "fp32 (int8 weights)"),
        ({"fp32": 1, "fp16": 3}, "fp16", "fp16 (3 of 4 kernels; 1 fp32)"),
        ({"fp32": 3, "fp64": 1}, "int8", "fp32 (3 of 4 kernels; 1 fp64)"),
    ],
)
def test_precision_in_words(counts: dict[str, int], built: str, text: str) -> None:
    assert describe_precision(counts, built) == text


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:-1", "cuda:1:2", "CPU"])
def test_devices_that_are_none(device: str) -> None:
    with pytest.raises(UnavailableError, match="no device"):
        cuda_index(device)


def test_trial_of_channels_last() -> None:
    info = TensorInfo("x", "float32", (8, "h", "w", 3))
    assert trial_shapes(info)[0] == (8, 112, 112, 3)


def test_trial_of_a_vector() -> None:
    assert trial_shapes(TensorInfo("x", "float32", (None, 7))) == [(1, 7)]


def test_batch_is_cast_to_half() -> None:
    batch = np.full((2, 3), 1.5, np.float32)
    cast = check_batch(batch, TensorInfo("x", "float16", ("n", 3)), MODEL)
    assert cast.dtype == np.float16
    assert (cast == 1.5).all()


def test_message_has_expected_and_given() -> None:
    info = TensorInfo("x", "float32", (2, 3, "h"))
    with pytest.raises(
        InputError, match=r"model\.onnx.*takes shape \(2, 3, any\), given \(1, 3, 4\)"
    ):
        check_batch(np.zeros((1, 3, 4), np.float32), info, MODEL)


def test_outputs_that_are_no_tensors() -> None:
    with pytest.raises(InputError, match="output 'words'"):
        float32_outputs(["words"], [["a", "b"]], MODEL)
    assert float32_outputs(["n"], [np.array([3])], MODEL)["n"].dtype == np.float32
