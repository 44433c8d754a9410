"""Caffe's two files, written without Caffe: fields by their numbers in its caffe.proto."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tiny_network import CHANNELS, EPSILON, FEATURES, SIDE, Tiny

Layer = tuple[str, str, str, list[NDArray[np.float32]], str]  # name, type, bottom, blobs, settings


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _blob(array: NDArray[np.float32]) -> bytes:
    shape = _field(1, b"".join(_varint(size) for size in array.shape))
    return _field(5, array.astype("<f4").tobytes()) + _field(7, shape)


def write(path: Path, inputs: str, layers: list[Layer]) -> Path:
    """Write ``path`` (a .prototxt) and the .caffemodel beside it; a bottom may name several."""
    text, binary = [inputs], [_field(1, b"tiny")]
    for name, kind, bottom, blobs, settings in layers:
        bottoms = bottom.split()
        text.append(
            f'layer {{ name: "{name}" type: "{kind}" '
            + "".join(f'bottom: "{one}" ' for one in bottoms)
            + f'top: "{name}" {settings} }}'
        )
        body = _field(1, name.encode()) + _field(2, kind.encode())
        body += b"".join(_field(3, one.encode()) for one in bottoms) + _field(4, name.encode())
        binary.append(_field(100, body + b"".join(_field(7, _blob(blob)) for blob in blobs)))
    path.write_text("\n".join(text) + "\n")
    path.with_suffix(".caffemodel").write_bytes(b"".join(binary))
    return path


INPUT_LAYER = (
    'layer { name: "image" type: "Input" top: "image" '
    f"input_param {{ shape {{ dim: 1 dim: 3 dim: {SIDE} dim: {SIDE} }} }} }}"
)


def write_tiny(tiny: Tiny, path: Path, inputs: str = INPUT_LAYER) -> Path:
    w = tiny.weights
    one = np.ones(1, np.float32)
    mean, var = w["bn.running_mean"], w["bn.running_var"]
    conv = f"num_output: {CHANNELS} kernel_size: 3 stride: 2 pad: 1 bias_term: false"
    return write(
        path,
        inputs,
        [
            ("conv", "Convolution", "image", [w["conv.weight"]], f"convolution_param {{ {conv} }}"),
            ("bn", "BatchNorm", "conv", [mean, var, one], f"batch_norm_param {{ eps: {EPSILON} }}"),
            (
                "scale",
                "Scale",
                "bn",
                [w["bn.weight"], w["bn.bias"]],
                "scale_param { bias_term: true }",
            ),
            ("prelu", "PReLU", "scale", [w["prelu.weight"]], ""),
            (
                "output0",
                "InnerProduct",
                "prelu",
                [w["fc.weight"], w["fc.bias"]],
                f"inner_product_param {{ num_output: {FEATURES} }}",
            ),
        ],
    )
