"""Export a model, run both, and write it with its record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import evalkit
from evalkit.backends.base import Session
from evalkit.convert.writing import check_out, put, work_folder
from evalkit.core.errors import InputError
from evalkit.core.files import sha256_file
from evalkit.core.machine import describe
from evalkit.core.settings import ModelConfig, RunSettings
from evalkit.core.sidecar import SCHEMA_VERSION, dumped, sidecar_path
from evalkit.run.models import image_shape, model_sha256, open_model

RTOL = 1e-3
ATOL = 1e-6
Target = Literal["onnx", "torchscript"]
_SUFFIX = {"onnx": ".onnx", "torchscript": ".pt"}
_READER = {"onnx": "onnxruntime", "torchscript": "torch"}


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """How to export.

    Attributes
    ----------
    target : str
    batch : int or None
        The batch size that the file is fixed to; None leaves it open.
    opset : int
    simplify : bool
    atol : float
        What ``assert_allclose`` is given.
    python : Path or None
        An interpreter with MXNet.
    threads : int or None
    """

    target: Target
    batch: int | None = None
    opset: int = 18
    simplify: bool = False
    atol: float = ATOL
    python: Path | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how well it agrees.

    Attributes
    ----------
    out : Path
    reference, candidate : str
        What ran the source, and what ran the export.
    largest : float
        Largest absolute difference of any output.
    atol_needed : float
        The `atol` with which ``assert_allclose(..., rtol=1e-3)`` holds.
    agrees : bool
        Whether it holds with the `atol` of the settings.
    """

    out: Path
    reference: str
    candidate: str
    largest: float
    atol_needed: float
    agrees: bool


def export(
    model: ModelConfig,
    source: Path,
    out: Path,
    settings: ExportSettings,
    *,
    overwrite: bool,
    command: str,
) -> Exported:
    """Export a model.

    Parameters
    ----------
    model : ModelConfig
        How images are prepared, and the architecture.
    source : Path
        A PyTorch file, or MXNet's symbol or parameters.
    out : Path
    settings : ExportSettings
    overwrite : bool
    command : str
        As typed, for the record.

    Raises
    ------
    evalkit.core.errors.EvalkitError
        The source cannot be read or exported, or the export does not run.
    """
    check_out(out, _SUFFIX[settings.target], source, overwrite=overwrite)
    shape = (settings.batch or 1, *image_shape(model))
    kind = "mxnet" if source.suffix in {".json", ".params"} else "torch"
    with work_folder(out) as folder:
        made = folder / out.name
        _write(kind, model, source, made, shape, folder, settings)
        for left in set(folder.iterdir()) - {made}:
            left.unlink()
        result = _check(kind, model, source, made, shape, settings)
        record = {
            "schema_version": SCHEMA_VERSION,
            "evalkit_version": evalkit.__version__,
            "command": command,
            "source": {"file": source.name, "sha256": model_sha256(source)},
            "built": {"file": out.name, "sha256": sha256_file(made)},
            "settings": {
                "target": settings.target,
                "batch": settings.batch,
                "opset": settings.opset if settings.target == "onnx" else None,
                "simplify": settings.simplify,
            },
            "calibration": None,
            "agreement": {
                "rtol": RTOL,
                "atol_needed": result.atol_needed,
                "largest_absolute": result.largest,
            },
            "environment": describe(),
        }
        sidecar_path(made).write_bytes(dumped(record))
        put(made, out, overwrite=overwrite)
    return Exported(
        out, result.reference, result.candidate, result.largest, result.atol_needed, result.agrees
    )


def _write(
    kind: str,
    model: ModelConfig,
    source: Path,
    made: Path,
    shape: tuple[int, ...],
    folder: Path,
    settings: ExportSettings,
) -> None:
    if settings.target == "torchscript":
        if kind != "torch":
            raise InputError(f"{source} is no PyTorch file; only those become TorchScript.")
        from evalkit.convert.export import torch  # noqa: PLC0415 - optional

        made.write_bytes(torch.to_torchscript(source, model.architecture, shape))
        return
    from evalkit.convert.export import onnx_graph  # noqa: PLC0415 - optional

    graph = _onnx(kind, model, source, shape, folder, settings)
    onnx_graph.save(onnx_graph.simplify(graph) if settings.simplify else graph, made)


def _onnx(
    kind: str,
    model: ModelConfig,
    source: Path,
    shape: tuple[int, ...],
    folder: Path,
    settings: ExportSettings,
) -> Any:
    dynamic = settings.batch is None
    if kind == "torch":
        from evalkit.convert.export import torch  # noqa: PLC0415 - optional

        return torch.to_onnx(
            source, model.architecture, shape, dynamic=dynamic, opset=settings.opset
        )
    from evalkit.backends.mxnet.network import find_files  # noqa: PLC0415 - only for such models
    from evalkit.convert.export import mxnet, onnx_graph  # noqa: PLC0415 - optional

    symbol, params = find_files(source)
    graph = mxnet.to_onnx(symbol, params, shape, folder, dynamic=dynamic, python=settings.python)
    return onnx_graph.mend(graph)


def _check(
    kind: str,
    model: ModelConfig,
    source: Path,
    made: Path,
    shape: tuple[int, ...],
    settings: ExportSettings,
) -> Exported:
    """Run the source and the export on the same random images."""
    reader = _READER[settings.target]
    sizes = [settings.batch] if settings.batch else [1, 3]
    batches = [_images(model, (size, *shape[1:]), size) for size in sizes]
    files = {kind: str(source.absolute()), f"{reader}:fp32": str(made.absolute())}
    if kind == reader:
        files = {f"{reader}:fp32": str(made.absolute())}
    python = settings.python if kind == "mxnet" else None
    first = RunSettings(backend=kind, python=python, threads=settings.threads)
    second = RunSettings(backend=reader, threads=settings.threads)
    wanted, ran = _outputs(first, _with_files(model, {kind: str(source.absolute())}), batches)
    found, also = _outputs(second, _with_files(model, files), batches)
    if [value.shape for value in wanted] != [value.shape for value in found]:
        raise InputError(
            f"{source} gives outputs of {[value.shape for value in wanted]}, its export of "
            f"{[value.shape for value in found]}. Export it with another --opset."
        )
    if not all(np.isfinite(value).all() for value in (*wanted, *found)):
        raise InputError(
            f"{source} or its export gives NaN or infinite numbers for random images, so that they "
            "cannot be compared. Check the weights, and --mean and --std."
        )
    apart = [np.abs(mine - other) for mine, other in zip(found, wanted, strict=True)]
    needed = [
        float((gap - RTOL * np.abs(other)).max()) for gap, other in zip(apart, wanted, strict=True)
    ]
    atol = max(0.0, *needed)
    largest = max(float(gap.max()) for gap in apart)
    return Exported(made, ran, also, largest, atol, atol <= settings.atol)


def _with_files(model: ModelConfig, files: dict[str, str]) -> ModelConfig:
    return model.model_copy(update={"files": files})


def _outputs(
    run: RunSettings, model: ModelConfig, batches: list[NDArray[np.float32]]
) -> tuple[list[NDArray[np.float32]], str]:
    with open_model(run, model) as opened:
        session: Session = opened.session
        found = [value for batch in batches for value in session.run(batch).values()]
        return found, f"{session.ran.backend} {session.ran.version}"


def _images(model: ModelConfig, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Draw pixels, and prepare them as the model's configuration says."""
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)
    axis = 1 if model.input.layout == "nchw" else 3
    sizes = [3 if place == axis else 1 for place in range(4)]
    mean, std = (
        np.broadcast_to(np.asarray(value, np.float32), 3).reshape(sizes)
        for value in (model.input.mean, model.input.std)
    )
    prepared: NDArray[np.float32] = ((pixels - mean) / std).astype(np.float32)
    return prepared
