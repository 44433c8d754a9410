"""The tiny network as MXNet's two files, written without MXNet."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiny_network import CHANNELS, EPSILON, FEATURES, Tiny

_TYPES = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}


def write_params(arrays: Mapping[str, NDArray[Any]], path: Path) -> Path:
    """Write a list of dense arrays as MXNet 1.x does, and their names."""
    out = struct.pack("<QQQ", 0x112, 0, len(arrays))
    for value in arrays.values():
        out += struct.pack("<IiI", 0xF993FAC9, 0, value.ndim)
        out += struct.pack(f"<{value.ndim}q", *value.shape)
        out += struct.pack("<iii", 1, 0, _TYPES[value.dtype.name])
        out += np.ascontiguousarray(value).tobytes()
    out += struct.pack("<Q", len(arrays))
    for name in arrays:
        out += struct.pack("<Q", len(name)) + name.encode()
    path.write_bytes(out)
    return path


def parameters(tiny: Tiny) -> dict[str, NDArray[np.float32]]:
    """Return the weights by MXNet's names."""
    w = tiny.weights
    return {
        "arg:conv_weight": w["conv.weight"],
        "arg:bn_gamma": w["bn.weight"],
        "arg:bn_beta": w["bn.bias"],
        "aux:bn_moving_mean": w["bn.running_mean"],
        "aux:bn_moving_var": w["bn.running_var"],
        "arg:prelu_gamma": w["prelu.weight"],
        "arg:fc_weight": w["fc.weight"],
        "arg:fc_bias": w["fc.bias"],
    }


def symbol() -> dict[str, Any]:
    """Return the graph as MXNet writes it."""
    nodes: list[dict[str, Any]] = []

    def node(op: str, name: str, inputs: list[int], **attrs: Any) -> int:
        places = [[i, 0, 0] for i in inputs]
        held = {key: str(value) for key, value in attrs.items()}
        nodes.append({"op": op, "name": name, "attrs": held, "inputs": places})
        return len(nodes) - 1

    def variable(name: str) -> int:
        return node("null", name, [])

    data = variable("data")
    conv = node(
        "Convolution",
        "conv",
        [data, variable("conv_weight")],
        **{"kernel": (3, 3), "stride": (2, 2), "pad": (1, 1), "num_filter": CHANNELS},
        no_bias=True,
    )
    names = ("gamma", "beta", "moving_mean", "moving_var")
    norm = node(
        "BatchNorm",
        "bn",
        [conv, *(variable(f"bn_{name}") for name in names)],
        eps=EPSILON,
        fix_gamma=False,
    )
    relu = node("LeakyReLU", "prelu", [norm, variable("prelu_gamma")], act_type="prelu")
    flat = node("Flatten", "flat", [relu])
    last = [flat, variable("fc_weight"), variable("fc_bias")]
    head = node("FullyConnected", "fc", last, num_hidden=FEATURES)
    return {
        "nodes": nodes,
        "arg_nodes": [i for i, held in enumerate(nodes) if held["op"] == "null"],
        "node_row_ptr": list(range(len(nodes) + 1)),
        "heads": [[head, 0, 0]],
        "attrs": {"mxnet_version": ["int", 10901]},
    }


def write_mxnet(tiny: Tiny, folder: Path, name: str = "tiny") -> Path:
    """Write both files; return the symbol's."""
    write_params(parameters(tiny), folder / f"{name}-0000.params")
    path = folder / f"{name}-symbol.json"
    path.write_text(json.dumps(symbol()), encoding="utf-8")
    return path
