"""PyTorch networks to ONNX and to TorchScript."""

from __future__ import annotations

import io
import logging
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from evalkit.backends.torch.loading import Loaded, cause, load
from evalkit.convert.torch.export import exported, input_of
from evalkit.core.errors import InputError, UnavailableError, install_command


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
        The exporter is not installed, or does not take the network.
    """
    try:
        import onnxscript  # noqa: F401, PLC0415 - what PyTorch's exporter needs
    except ImportError as error:
        raise UnavailableError(
            f"PyTorch's exporter needs onnxscript. Install it: {install_command('convert')}."
        ) from error
    loaded = _float(source, architecture)
    info = input_of(loaded, shape)
    graph = exported(source, loaded, info, (max(shape[0], 2), *shape[1:]))
    example = torch.zeros((2 if dynamic else shape[0], *shape[1:]))
    sizes = ({0: torch.export.Dim("n")},) if dynamic else None
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                dynamic_shapes=sizes,
                opset_version=opset,
                input_names=["input"],
                verbose=False,
            )
    except Exception as error:
        raise InputError(
            f"{source}: PyTorch {torch.__version__} cannot export it to opset {opset}: "
            f"{cause(error)}."
        ) from error
    if program is None:
        raise InputError(f"{source}: PyTorch's exporter gave nothing.")
    return program.model_proto


def to_torchscript(source: Path, architecture: str | None, shape: tuple[int, ...]) -> bytes:
    """Trace a network, and leave out the records that tell where it was done.

    Raises
    ------
    evalkit.core.errors.InputError
        The file holds TorchScript already, or its network cannot be traced.
    """
    loaded = _float(source, architecture)
    if loaded.form == "torchscript":
        raise InputError(f"{source} is TorchScript already.")
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(loaded.module, torch.zeros(shape))
    except Exception as error:
        raise InputError(f"{source} cannot be traced: {cause(error)}.") from error
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    kept = io.BytesIO()
    with zipfile.ZipFile(buffer) as held, zipfile.ZipFile(kept, "w") as target:
        for record in held.infolist():
            if not record.filename.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(record.filename), held.read(record))
    return kept.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from telling which optional packages it does not find."""
    logger = logging.getLogger("torch.onnx")
    held = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(held)


def _float(source: Path, architecture: str | None) -> Loaded:
    loaded = load(source, architecture)
    if loaded.quantised:
        raise InputError(f"{source} is quantised. Export the fp32 network that it was made from.")
    return loaded
