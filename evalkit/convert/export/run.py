"""Export a model, run both, and write it with its record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import evalkit
from evalkit.convert.writing import check_out, put, work_folder
from evalkit.core.errors import InputError
from evalkit.core.files import sha256_file
from evalkit.core.machine import describe
from evalkit.core.settings import ModelConfig, RunSettings
from evalkit.core.sidecar import SCHEMA_VERSION
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
        Fixed batch size of the file; None leaves it open.
    opset : int
    simplify : bool
    atol : float
        For ``assert_allclose``.
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
    """The written file, and how well it agrees.

    Attributes
    ----------
    out : Path
    reference, candidate : str
        What ran the source, and what ran the export.
    largest : float
        Largest absolute difference of any output.
    atol_needed : float
        The `atol` with which ``assert_allclose(..., rtol=1e-3)`` passes.
    agrees : bool
        Whether it passes with the `atol` of the settings.
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
        The command line, for the record.

    Raises
    ------
    evalkit.core.errors.EvalkitError
        The source cannot be read or exported, or the export does not run.
    """
    check_out(out, _SUFFIX[settings.target], source, overwrite=overwrite)
    job = _Job(model, source, settings)
    with work_folder(out) as folder:
        file = folder / out.name
        job.write(file)
        for other in set(folder.iterdir()) - {file}:
            other.unlink()
        exported = job.compare(file)
        put(file, out, job.record(file, exported, command), overwrite=overwrite)
    return replace(exported, out=out)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """One export."""

    model: ModelConfig
    source: Path
    settings: ExportSettings

    @property
    def kind(self) -> str:
        """The backend that runs the source."""
        return "mxnet" if self.source.suffix in {".json", ".params"} else "torch"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one batch."""
        return (self.settings.batch or 1, *image_shape(self.model))

    def write(self, file: Path) -> None:
        """Export to a file; its folder may get others on the way."""
        architecture = self.model.architecture
        if self.settings.target == "torchscript":
            if self.kind != "torch":
                raise InputError(
                    f"{self.source} is no PyTorch file, and only those become TorchScript. Export "
                    "it --to onnx."
                )
            from evalkit.convert.export import torch  # noqa: PLC0415 - optional

            file.write_bytes(torch.to_torchscript(self.source, architecture, self.shape))
            return
        from evalkit.convert.export import onnx_graph  # noqa: PLC0415 - optional

        graph = self._graph(file.parent)
        onnx_graph.save(onnx_graph.simplify(graph) if self.settings.simplify else graph, file)

    def _graph(self, folder: Path) -> Any:
        dynamic = self.settings.batch is None
        if self.kind == "torch":
            from evalkit.convert.export import torch  # noqa: PLC0415 - optional

            opset, architecture = self.settings.opset, self.model.architecture
            return torch.to_onnx(
                self.source, architecture, self.shape, dynamic=dynamic, opset=opset
            )
        from evalkit.backends.mxnet.network import find_files  # noqa: PLC0415 - optional
        from evalkit.convert.export import mxnet, onnx_graph  # noqa: PLC0415 - optional

        files, python = find_files(self.source), self.settings.python
        graph = mxnet.to_onnx(*files, self.shape, folder, dynamic=dynamic, python=python)
        return onnx_graph.mend(graph)

    def compare(self, file: Path) -> Exported:
        """Run the source and the export on the same random images."""
        reader = _READER[self.settings.target]
        sizes = [self.settings.batch] if self.settings.batch else [1, 3]
        batches = [_images(self.model, (size, *self.shape[1:]), size) for size in sizes]
        python = self.settings.python if self.kind == "mxnet" else None
        expected, reference = self._outputs(self.kind, self.source, batches, python)
        actual, candidate = self._outputs(reader, file, batches, None)
        shapes = [[value.shape for value in side] for side in (expected, actual)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"{self.source} gives outputs of {shapes[0]}, its export of {shapes[1]}. Export it "
                "with another --opset."
            )
        if not all(np.isfinite(value).all() for value in (*expected, *actual)):
            raise InputError(
                f"{self.source} or its export gives NaN or infinite numbers for random images, so "
                "they cannot be compared. Check the weights, and --mean and --std."
            )
        pairs = list(zip(actual, expected, strict=True))
        largest = max(float(np.abs(a - b).max()) for a, b in pairs)
        needed = max(float((np.abs(a - b) - RTOL * np.abs(b)).max()) for a, b in pairs)
        atol = max(0.0, needed)
        return Exported(file, reference, candidate, largest, atol, atol <= self.settings.atol)

    def _outputs(
        self, backend: str, file: Path, batches: list[NDArray[np.float32]], python: Path | None
    ) -> tuple[list[NDArray[np.float32]], str]:
        run = RunSettings(backend=backend, python=python, threads=self.settings.threads)
        model = self.model.model_copy(update={"files": {backend: str(file.absolute())}})
        with open_model(run, model) as opened:
            outputs = [value for batch in batches for value in opened.session.run(batch).values()]
            ran = opened.session.ran
        return outputs, f"{ran.backend} {ran.version}"

    def record(self, file: Path, exported: Exported, command: str) -> dict[str, Any]:
        """Return the sidecar."""
        settings = self.settings
        return {
            "schema_version": SCHEMA_VERSION,
            "evalkit_version": evalkit.__version__,
            "command": command,
            "source": {"file": self.source.name, "sha256": model_sha256(self.source)},
            "built": {"file": file.name, "sha256": sha256_file(file)},
            "settings": {
                "target": settings.target,
                "batch": settings.batch,
                "opset": settings.opset if settings.target == "onnx" else None,
                "simplify": settings.simplify,
            },
            "calibration": None,
            "agreement": {
                "rtol": RTOL,
                "atol_needed": exported.atol_needed,
                "largest_absolute": exported.largest,
            },
            "environment": describe(),
        }


def _images(model: ModelConfig, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Draw random pixels and normalise them as the model's configuration says."""
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)
    sizes = (1, 3, 1, 1) if model.input.layout == "nchw" else (1, 1, 1, 3)
    mean, std = (
        np.broadcast_to(np.asarray(value, np.float32), 3).reshape(sizes)
        for value in (model.input.mean, model.input.std)
    )
    prepared: NDArray[np.float32] = ((pixels - mean) / std).astype(np.float32)
    return prepared
