"""Settings of a dump."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from evalkit.core.errors import EvalkitError
from evalkit.core.option import Option, options_of
from evalkit.core.settings import DATA, PREPARATION, RunSettings
from evalkit.tasks import TASKS, settings_of

_FORM = "form"
_CALIBRATION = "calibration"


class DumpSettings(RunSettings):
    """Settings of ``evalkit dump``."""

    shared = frozenset({"data", "limit", *PREPARATION, "decode_threads"})

    kind: str
    out: Annotated[Path, Option("folder to write", "", "file", "DIR")]
    model: Annotated[
        str | None,
        Option(
            "model YAML, its name, or a model file: it says how to prepare the images",
            "model",
            "cell",
            "YAML",
            default="the embedded network, on a sample only",
        ),
    ] = None
    format: Annotated[
        Literal["bin", "npy", "image", "npz"],
        Option(
            "raw little-endian tensors, .npy, PNG pictures before normalisation, or .npz shards",
            _FORM,
            "run",
        ),
    ] = "bin"
    batch: Annotated[
        int | None, Option("inputs in a file", _FORM, "run", "N", default="1; 256 of faces in .npz")
    ] = Field(default=None, ge=1)
    dtype: Annotated[
        Literal["float32", "uint8"] | None,
        Option("uint8 are pixels that are not normalised", _FORM, "figure", default="float32"),
    ] = None
    flip: Annotated[bool, Option("also write the mirrored faces", _FORM, "figure")] = True
    sizing: Annotated[
        str | None,
        Option(
            "size of a detector's input",
            _FORM,
            "figure",
            "TEXT",
            default="model YAML",
        ),
    ] = None
    events: Annotated[
        tuple[str, ...], Option("only these events of WIDER FACE", DATA, "figure", "NAME,...")
    ] = ()
    ground_truth: Annotated[
        Path | None,
        Option("folder of WIDER FACE's .mat files", DATA, "figure", "DIR", default="in --data"),
    ] = None
    calibration: Annotated[
        int | None,
        Option(
            "also write N inputs for calibration, of people who are not evaluated if names tell",
            _CALIBRATION,
            "run",
            "N",
        ),
    ] = Field(default=None, ge=1)
    calibration_data: Annotated[
        Path | None,
        Option("data to draw these inputs from", _CALIBRATION, "file", "PATH", default="--data"),
    ] = None
    seed: Annotated[int, Option("seed of the draw", _CALIBRATION, "run", "N")] = Field(
        default=0, ge=0
    )


def data_settings() -> dict[str, type[RunSettings]]:
    """Return the tasks' own settings that decide which images there are, each with a class of it.

    They are those in the group of the data on which figures rest, beside those of a dump.
    """
    kinds: dict[str, type[RunSettings]] = {}
    for task in TASKS:
        with suppress(EvalkitError):  # a task that cannot be used leaves the others alone
            kind = settings_of(task)
            for name, option in options_of(kind).items():
                if (option.group, option.scope) == (DATA, "figure"):
                    kinds.setdefault(name, kind)
    return {name: kind for name, kind in kinds.items() if name not in options_of(DumpSettings)}
