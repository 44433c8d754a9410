"""What a result says of a run whose outputs were computed elsewhere."""

from __future__ import annotations

from pathlib import Path

from evalkit.backends.outputs.runtime_info import read_runtime_info, read_throughput
from evalkit.core.results import READY_MADE, ModelInfo, RanInfo
from evalkit.core.settings import RunSettings
from evalkit.run.models import model_sha256


def ready_model(file: Path) -> ModelInfo:
    """Return the file that stands for the model."""
    return ModelInfo(name=file.stem, file=str(file), sha256=model_sha256(file), preprocessing={})


def ready_ran(config: RunSettings) -> RanInfo:
    """Return what the user says of the run: the precision, the runtime info of the device."""
    info = read_runtime_info(config.runtime_info, config.precision)
    note = "Computed elsewhere: evalkit ran no inference and takes the precision on trust."
    return RanInfo(
        backend=READY_MADE,
        version=info.version,
        device=info.device,
        precision_requested=config.precision,
        precision_ran=info.precision_ran,
        threads=info.threads,
        batch_size=info.batch_size,
        details={"runtime": info.runtime} if config.runtime_info else {},
        notes=(note, *((info.notes,) if info.notes else ())),
    )


def ready_throughput(config: RunSettings) -> float | None:
    """Return the images a second of the device's log, where the user names one."""
    return None if config.throughput_log is None else read_throughput(config.throughput_log)
