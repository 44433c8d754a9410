"""Run by an interpreter that has MXNet and onnx: a symbol and its parameters to ONNX.

    python mxnet_script.py SYMBOL.json NAME.params OUT.onnx N,C,H,W BATCH

BATCH is a name where the batch size is to stay open. Needs nothing of evalkit.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

# MXNet's exporter takes what a symbol leaves out for false; these are true, or no number at all.
DEFAULTS = {
    "FullyConnected": {"flatten": "True", "no_bias": "False"},
    "BatchNorm": {"fix_gamma": "True", "eps": "0.001"},
    "Convolution": {"no_bias": "False"},
    "L2Normalization": {"mode": "instance", "eps": "1e-10"},
}


def explicit(symbol: dict[str, Any]) -> dict[str, Any]:
    """Write the defaults of a symbol's operators out."""
    for node in symbol["nodes"]:
        held: dict[str, str] = {}
        for key in ("param", "attr", "attrs"):
            held.update(node.pop(key, None) or {})
        node["attrs"] = {**DEFAULTS.get(node["op"], {}), **held}
    return symbol


def main(symbol: str, params: str, out: str, shape: str, batch: str) -> None:
    """Export one model."""
    for alias, kind in (("bool", bool), ("float", float), ("int", int), ("object", object)):
        if alias not in np.__dict__:
            setattr(np, alias, kind)
    os.environ.setdefault("MXNET_SUBGRAPH_BACKEND", "NONE")
    import mxnet as mx

    sizes = tuple(int(size) for size in shape.split(","))
    dynamic: dict[str, Any] = {}
    if not batch.isdigit():
        dynamic = {"dynamic": True, "dynamic_input_shapes": [(batch, *sizes[1:])]}
    with tempfile.TemporaryDirectory() as folder:
        # MXNet finds both files by one prefix.
        written = Path(folder, "model-symbol.json")
        written.write_text(json.dumps(explicit(json.loads(Path(symbol).read_text("utf-8")))))
        beside = Path(folder, "model-0000.params")
        beside.symlink_to(params)
        mx.onnx.export_model(str(written), str(beside), [sizes], [np.float32], out, **dynamic)


if __name__ == "__main__":
    main(*sys.argv[1:6])
