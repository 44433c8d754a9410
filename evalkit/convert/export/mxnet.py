"""MXNet symbol and parameters to ONNX, by MXNet's own exporter in its own environment."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.backends.mxnet.backend import import_mxnet
from evalkit.backends.mxnet.network import cause
from evalkit.backends.tensors import explained
from evalkit.convert.mxnet import mxnet_python

# MXNet's exporter takes an absent attribute for false; these are true, or no flag at all.
DEFAULTS = {
    "FullyConnected": {"flatten": "True", "no_bias": "False"},
    "BatchNorm": {"fix_gamma": "True", "eps": "0.001"},
    "Convolution": {"no_bias": "False"},
    "L2Normalization": {"mode": "instance", "eps": "1e-10"},
}
_LIMIT = 600.0  # seconds


def to_onnx(
    symbol: Path,
    params: Path,
    shape: tuple[int, ...],
    folder: Path,
    *,
    dynamic: bool,
    python: Path | None,
) -> Any:
    """Export a model.

    Parameters
    ----------
    symbol, params : Path
    shape : tuple of int
        Of the input, the batch first.
    folder : Path
        For files on the way.
    dynamic : bool
        Whether the batch size stays open.
    python : Path or None
        An interpreter with MXNet and onnx; None uses that of ``evalkit env create mxnet``.

    Returns
    -------
    onnx.ModelProto
        As MXNet writes it: see `evalkit.convert.export.onnx_graph.mend`.

    Raises
    ------
    evalkit.core.errors.EvalkitError
        There is no such interpreter, or MXNet cannot export the model.
    """
    import onnx  # noqa: PLC0415 - optional

    from evalkit.backends.worker.process import Worker  # noqa: PLC0415 - not in a worker

    out = folder.absolute() / "from_mxnet.onnx"
    with closing(Worker(mxnet_python(python), timeout=_LIMIT)) as worker:
        worker.ask(
            f"exporting {symbol}",
            do="call",
            target="evalkit.convert.export.mxnet:write_onnx",
            arguments={
                "symbol": str(symbol.absolute()),
                "params": str(params.absolute()),
                "out": str(out),
                "shape": shape,
                "dynamic": dynamic,
            },
        )
    return onnx.load(str(out))


def write_onnx(symbol: str, params: str, out: str, shape: list[int], *, dynamic: bool) -> None:
    """Export a model, in an interpreter that has MXNet and onnx; see `to_onnx`.

    Raises
    ------
    evalkit.core.errors.InputError
        MXNet cannot export the model.
    """
    mxnet = import_mxnet()
    for alias, kind in (("bool", bool), ("float", float), ("int", int), ("object", object)):
        if alias not in vars(np):  # NumPy dropped them; the exporter uses them
            setattr(np, alias, kind)
    sizes: dict[str, Any] = {}
    if dynamic:
        sizes = {"dynamic": True, "dynamic_input_shapes": [("n", *shape[1:])]}
    with tempfile.TemporaryDirectory() as folder:
        # MXNet finds both files by one prefix.
        graph, arrays = Path(folder, "model-symbol.json"), Path(folder, "model-0000.params")
        graph.write_text(json.dumps(explicit(json.loads(Path(symbol).read_text("utf-8")))))
        arrays.symlink_to(params)
        remedy = (
            f"Check that {sys.executable} has onnx, and that MXNet's exporter knows every operator."
        )
        with explained(f"MXNet cannot export {symbol}", remedy, cause=cause):
            mxnet.onnx.export_model(
                str(graph), str(arrays), [tuple(shape)], [np.float32], out, **sizes
            )


def explicit(symbol: dict[str, Any]) -> dict[str, Any]:
    """Write the default attributes of a symbol's operators into it."""
    for node in symbol["nodes"]:
        attributes: dict[str, str] = {}
        for key in ("param", "attr", "attrs"):
            attributes.update(node.pop(key, None) or {})
        node["attrs"] = {**DEFAULTS.get(node["op"], {}), **attributes}
    return symbol
