"""What the user of a device says of its run, and what the device's log says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field

from evalkit.backends.base import Precision
from evalkit.backends.tensors import as_its_user_says
from evalkit.core.errors import InputError
from evalkit.core.records import Record
from evalkit.core.results import Text
from evalkit.core.validation import read_yaml, validate

FILE = "runtime-info.yaml"
_TEMPLATE = """\
# Fill in what ran the model, then give this file to --runtime-info.
device: unknown     # such as Ascend 310P3, MLU370-S4
runtime: unknown    # such as ais_bench, mm_run
version: ""
precision: fp16     # that of the device's model: fp32, fp16, bf16 or int8
batch_size: 1
threads: null
notes: ""           # how the model was built: tool, calibration, switches
output_dtype: float32   # of .bin files
"""

# ais_bench: "throughput 1000*batchsize.mean(1)/NPU_compute_time.mean(3.5): 281.3"
# mm_run: "Throughput (qps): 5123.4"
_THROUGHPUT = re.compile(
    r"(?:throughput 1000\*batchsize(?:\.mean\([^)]*\)|\([^)]*\))?/NPU_compute_time[^:]*"
    r"|throughput\s*\(qps\))\s*[:=]\s*(?P<rate>[0-9.eE+]+)",
    re.IGNORECASE,
)


class OutputSpec(Record):
    """One output of the device's model; -1 stands for one size that the file tells."""

    name: str = Field(min_length=1)
    shape: tuple[int, ...] | None = None


class RuntimeInfo(Record):
    """What ran, as the user says; evalkit cannot check it.

    Attributes
    ----------
    device, runtime, version : str
    precision : str
        Of the model on the device.
    outputs : tuple of OutputSpec
        The model's outputs in the order of their numbers in the files' names; a detector's need
        shapes where the files have none.
    output_dtype : str
        Element type of ``.bin`` files.
    """

    device: Text = "unknown"
    runtime: Text = "unknown"
    version: Text = ""
    precision: Precision | None = None
    batch_size: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    notes: Text = ""
    outputs: tuple[OutputSpec, ...] = ()
    output_dtype: Literal["float32", "float16"] = "float32"

    @property
    def precision_ran(self) -> str:
        """What ran, as results say it."""
        return "unknown" if self.precision is None else as_its_user_says(self.precision)


def write_template(folder: Path, outputs: tuple[OutputSpec, ...]) -> Path:
    """Write a file to fill in, unless there is one; return its path."""
    path = folder / FILE
    if not path.exists():
        lines = [
            f"  - {{name: {output.name}, shape: {list(output.shape)}}}\n"
            if output.shape
            else f"  - {{name: {output.name}}}\n"
            for output in outputs
        ]
        listed = "outputs:          # in the order of their numbers; -1 varies\n" if lines else ""
        path.write_text(_TEMPLATE + listed + "".join(lines), encoding="utf-8")
    return path


def read_runtime_info(path: Path | None, precision: Precision | None = None) -> RuntimeInfo:
    """Read the YAML file of ``--runtime-info``.

    Parameters
    ----------
    path : Path or None
    precision : str, optional
        What the run was asked for.

    Raises
    ------
    evalkit.core.errors.InputError
        It is missing, a setting is unknown or wrong, or it states another precision.
    """
    info = RuntimeInfo() if path is None else validate(RuntimeInfo, read_yaml(path), str(path))
    if None not in {info.precision, precision} and info.precision != precision:
        raise InputError(
            f"{path} says that the device ran {info.precision}, but {precision} was asked for. "
            f"Correct the file, or ask for --precision {info.precision}."
        )
    return info


def read_throughput(path: Path) -> float:
    """Read images a second from a device's log.

    Knows the line of Ascend's ``ais_bench`` (``throughput 1000*batchsize.mean(1)/...: 281.4``) and
    that of MagicMind's ``mm_run`` (``Throughput (qps): 5123.4``). Of several devices, the sum.

    Raises
    ------
    evalkit.core.errors.InputError
        The log cannot be read, or holds no such line.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"Cannot read the log {path}: {error.strerror}.") from error
    rates = []
    for match in _THROUGHPUT.finditer(text):
        try:
            rates.append(float(match["rate"]))
        except ValueError as error:
            raise InputError(
                f"{path} states a throughput that is no number: {match[0]!r}."
            ) from error
    if not rates or not all(rate > 0 for rate in rates):
        raise InputError(
            f"{path} states no throughput: no line of ais_bench ('throughput 1000*batchsize...: "
            "281.4') or mm_run ('Throughput (qps): 5123.4'). Give the log of the device's run."
        )
    return sum(rates)
