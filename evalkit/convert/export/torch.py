"""PyTorch networks to ONNX and to TorchScript."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from evalkit.backends.torch.loading import Loaded, cause, load
from evalkit.convert.toolchain import optional, quiet
from evalkit.convert.torch.export import exported, input_of
from evalkit.core.errors import InputError


def to_onnx(
    source: Path,
    architecture: str | None,
    shape: tuple[int, ...],
    *,
    dynamic: bool,
    opset: int,
) -> Any:
    """Export a network by PyTorch's own exporter.

    Parameters
    ----------
    source : Path
        TorchScript, an exported program, or a state dict.
    architecture : str or None
        Of a state dict.
    shape : tuple of int
        Of one batch.
    dynamic : bool
        Whether the batch size stays open.
    opset : int

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    evalkit.core.errors.EvalkitError
        The exporter is not installed, or cannot export the network.
    """
    optional("onnxscript", "PyTorch's exporter")
    loaded = _float_network(source, architecture)
    info = input_of(loaded, shape)
    graph = exported(source, loaded, info, (max(shape[0], 2), *shape[1:]))
    example = torch.zeros((2 if dynamic else shape[0], *shape[1:]))
    action = f"{source}: PyTorch {torch.__version__} cannot export it to opset {opset}"
    with quiet(action, "Try another --opset.", cause):
        program: Any = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("n")},) if dynamic else None,
            opset_version=opset,
            input_names=["input"],
            verbose=False,
        )
    if program is None:
        raise InputError(f"{source}: PyTorch's exporter returned nothing. Try another --opset.")
    return program.model_proto


def to_torchscript(source: Path, architecture: str | None, shape: tuple[int, ...]) -> bytes:
    """Trace a network, without the debug records that name files of this machine.

    Raises
    ------
    evalkit.core.errors.InputError
        The file holds TorchScript already, or its network cannot be traced.
    """
    loaded = _float_network(source, architecture)
    if loaded.form == "torchscript":
        raise InputError(
            f"{source} is TorchScript already. Export it --to onnx, or use it as it is."
        )
    remedy = "Check that torch.jit.trace takes the network, or export it --to onnx."
    with quiet(f"{source} cannot be traced", remedy, cause), torch.no_grad():
        traced = torch.jit.trace(loaded.module, torch.zeros(shape))
    buffer, copy = io.BytesIO(), io.BytesIO()
    torch.jit.save(traced, buffer)
    with zipfile.ZipFile(buffer) as archive, zipfile.ZipFile(copy, "w") as target:
        for record in archive.infolist():
            if not record.filename.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(record.filename), archive.read(record))
    return copy.getvalue()


def _float_network(source: Path, architecture: str | None) -> Loaded:
    loaded = load(source, architecture)
    if loaded.quantised:
        raise InputError(f"{source} is quantised. Export the fp32 network that it was made from.")
    return loaded
