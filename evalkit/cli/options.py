"""Options that the evaluations share; defaults < YAML (``--config``) < command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from evalkit.core.settings import RunSettings

    C = TypeVar("C", bound=RunSettings)


def add_run_options(
    parser: argparse.ArgumentParser, data_help: str, *, failures: str = "100", results: str = ""
) -> None:
    """Add the options of every evaluation; what is not given stays out of the namespace.

    Parameters
    ----------
    data_help : str
        Of ``--data``.
    failures : str
        The default of ``--max-failures``.
    results : str
        What the help of ``--output`` adds.
    """
    parser.argument_default = argparse.SUPPRESS
    data = parser.add_argument_group("data")
    data.add_argument("--data", type=Path, metavar="PATH", help=data_help)
    data.add_argument("--limit", type=int, metavar="N", help="a quick look at about N images")
    data.add_argument(
        "--max-failures",
        type=int,
        metavar="N",
        help=f"stop when more images fail: unreadable, or no usable output ({failures})",
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        metavar="FILE",
        help="model file, model YAML, or its name (the embedded network, on a sample only)",
    )
    model.add_argument("--backend", metavar="NAME", help="runtime (onnxruntime)")
    model.add_argument("--precision", choices=["fp32", "fp16", "bf16", "int8"], help="(fp32)")
    model.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, ... (cpu)")
    model.add_argument("--architecture", metavar="NAME", help="for files of weights alone")
    model.add_argument(
        "--python", metavar="FILE", help="run the backend in a worker of this interpreter"
    )
    model.add_argument(
        "--worker-timeout",
        type=float,
        metavar="S",
        help="seconds that a worker may take to open the model, and for a batch (600)",
    )
    add_preparation_options(model)
    _add_device_options(parser)
    speed = parser.add_argument_group("speed")
    speed.add_argument("--batch-size", type=int, metavar="N", help="images a batch (32)")
    speed.add_argument("--threads", type=int, metavar="N", help="threads of the runtime (cores)")
    speed.add_argument("--decode-threads", type=int, metavar="N", help="(cores)")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output", type=Path, metavar="JSON", help=f"write the result there{results}"
    )
    output.add_argument(
        "--outputs-dir",
        type=Path,
        metavar="DIR",
        help="the outputs store of this run (default: in the cache, $EVALKIT_CACHE)",
    )
    output.add_argument(
        "--overwrite",
        choices=["always", "never", "only-missing"],
        help="which stored outputs to compute again (only-missing)",
    )
    output.add_argument(
        "--shard-size", type=int, metavar="N", help="images a shard: what an interruption can lose"
    )
    output.add_argument("--quiet", action="store_true", help="no progress, only the table")
    parser.add_argument("--config", type=Path, metavar="YAML", help="settings from a file")


def add_preparation_options(group: argparse._ArgumentGroup) -> None:
    """Add what says how an image becomes a model's input."""
    group.add_argument("--color", choices=["rgb", "bgr"], help="channel order (rgb)")
    group.add_argument("--layout", choices=["nchw", "nhwc"], help="tensor layout (nchw)")
    for name, does in (("--mean", "subtracted"), ("--std", "divided by")):
        group.add_argument(
            name, type=scale, metavar="X[,X,X]", help=f"{does}, in pixel units (127.5)"
        )


def _add_device_options(parser: argparse.ArgumentParser) -> None:
    device = parser.add_argument_group("outputs of a device (--backend outputs)")
    device.add_argument(
        "--outputs", type=Path, metavar="DIR", help="what the device wrote for an 'evalkit dump'"
    )
    device.add_argument("--manifest", type=Path, metavar="DIR", help="the folder of that dump")
    device.add_argument(
        "--runtime-info", type=Path, metavar="YAML", help="device, runtime, precision, outputs"
    )
    device.add_argument(
        "--throughput-log",
        type=Path,
        metavar="FILE",
        help="of ais_bench or mm_run: images/s, of several lines the sum",
    )
    device.add_argument(
        "--verify",
        type=_count_or_all,
        metavar="N|all",
        help="compare so many outputs with the model run here, where it can be (of a detector all, "
        "of faces 32: mirror images check the rest)",
    )


def _count_or_all(text: str) -> int | str:
    if text == "all":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'all'")
    return int(text)


def resolve(arguments: argparse.Namespace, kind: type[C]) -> C:
    """Merge the YAML file and the given options into a configuration.

    Raises
    ------
    evalkit.core.errors.InputError
        A setting is unknown or out of range.
    """
    from evalkit.core.validation import COMMAND_LINE, read_yaml, validate

    given = vars(arguments)
    values: dict[str, Any] = {}
    source = COMMAND_LINE
    if "config" in given:
        values = read_yaml(given["config"])
        source = f"{given['config']} and {COMMAND_LINE}"
    values.update({name: value for name, value in given.items() if name in kind.model_fields})
    if values.get("runtime_info") is not None and "precision" in kind.model_fields:
        values.setdefault("precision", _ran_elsewhere(Path(values["runtime_info"])))
    return validate(kind, values, source)


def _ran_elsewhere(runtime_info: Path) -> str:
    """Return the precision that a device's own file states, where the user names none."""
    from evalkit.backends.outputs.runtime_info import read_runtime_info

    return read_runtime_info(runtime_info).precision or "fp32"


def command_line(arguments: argparse.Namespace) -> str:
    """Return the command as it was typed, for the result."""
    import shlex
    import sys

    return (
        shlex.join(["evalkit", *sys.argv[1:]]) if sys.argv[1:] else f"evalkit {arguments.command}"
    )


def check_output(path: Path | None, option: str = "--output") -> None:
    """Make the folder of an output file and see that it can be written, before the long work.

    Raises
    ------
    evalkit.core.errors.InputError
        It is a folder itself, or nothing can be written there.
    """
    from evalkit.core.errors import InputError

    if path is None:
        return
    if path.is_dir():
        raise InputError(f"{option} {path} is a folder. Name a file in it, such as result.json.")
    _check_writable(path.parent, f"{option} {path}")


def check_folder(path: Path | None, option: str) -> None:
    """Make a folder of outputs and see that it can be written, before the long work.

    Raises
    ------
    evalkit.core.errors.InputError
        It is a file, or nothing can be written there.
    """
    from evalkit.core.errors import InputError

    if path is None:
        return
    if path.exists() and not path.is_dir():
        raise InputError(f"{option} {path} is a file. Name a folder.")
    _check_writable(path, f"{option} {path}")


def _check_writable(folder: Path, what: str) -> None:
    import tempfile

    from evalkit.core.errors import InputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{what}: files cannot be made in {folder}: {error.strerror}. Choose another folder."
        ) from error


def numbers(text: str) -> tuple[float, ...]:
    """Read numbers separated by commas, for argparse."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number, or several separated by commas (1e-5,1e-4)"
        ) from None


def names(text: str) -> tuple[str, ...]:
    """Read names separated by commas, for argparse."""
    return tuple(part for part in text.split(",") if part)


def scale(text: str) -> float | tuple[float, ...]:
    """Read one number, or one for each channel, for argparse."""
    parts = numbers(text)
    if len(parts) not in {1, 3}:
        raise argparse.ArgumentTypeError("give one number, or three separated by commas")
    return parts[0] if len(parts) == 1 else parts
