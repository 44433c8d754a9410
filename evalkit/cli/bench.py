"""``evalkit bench``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.cli.options import Options, add_quiet, command_line, count, resolve

if TYPE_CHECKING:
    from evalkit.backends.base import Precision

EPILOG = """\
examples:
  evalkit bench                                    the embedded network on its backends
  evalkit bench --model r50.yaml --backends onnxruntime,openvino --precisions fp32,int8
  evalkit bench --model r50.onnx --batch-sizes 1,8,32 --threads 1,2,4 --output bench.json

All configurations are open at the same time and take turns: other work on the machine slows all of
them. A configuration that cannot run does not stop the others; the table says why.
"""


RUN = ("architecture", "layout", "python", "worker_timeout", "device")
"""Settings of a run that all configurations share."""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    from evalkit.core.settings import RunSettings

    options = Options(parser)
    model = options.group("model")
    model.add_argument(
        "--model",
        default="sample-recognition",
        metavar="FILE",
        help="model file, model YAML, or its name (default: the embedded network)",
    )
    options.add(RunSettings, RUN[:-1])
    _add_grid(options)
    timing = options.group("timing")
    timing.add_argument("--repeats", type=count, default=5, metavar="N", help="rounds (default: 5)")
    timing.add_argument(
        "--seconds",
        type=_seconds,
        default=1.0,
        metavar="S",
        help="least time of each configuration in each round (default: 1)",
    )
    output = options.group("output")
    output.add_argument("--output", type=Path, metavar="JSON", help="write the figures here")
    add_quiet(output)


def _add_grid(options: Options) -> None:
    from evalkit.core.settings import RunSettings

    title = "configurations: every combination is timed"
    grid = options.group(title)
    grid.add_argument(
        "--backends",
        type=_names,
        metavar="NAME,...",
        help="runtimes (default: those that the model has files for)",
    )
    grid.add_argument(
        "--precisions",
        type=_names,
        default=("fp32",),
        metavar="NAME,...",
        help="precisions (default: fp32)",
    )
    grid.add_argument(
        "--batch-sizes",
        type=_counts,
        default=(1, 8, 32),
        metavar="N,...",
        help="images in a run (default: 1,8,32)",
    )
    grid.add_argument(
        "--threads",
        type=_counts,
        metavar="N,...",
        help="threads of the runtime (default: all cores)",
    )
    options.add(RunSettings, ("device",), group=title)


def run(arguments: argparse.Namespace) -> int:
    """Time every combination, print the table, write the figures."""
    from itertools import product

    from evalkit.bench import Setup, bench
    from evalkit.core.errors import EXIT_OK, EXIT_USER_ERROR
    from evalkit.core.progress import Progress
    from evalkit.core.settings import RunSettings, load_model_config
    from evalkit.core.validation import check_path
    from evalkit.report.bench import describe

    if arguments.output is not None:
        check_path(arguments.output, "--output")
    settings = resolve(arguments, RunSettings, RUN)
    model = load_model_config(arguments.model, settings)
    backends = arguments.backends or _backends_of(model.files)
    precisions = _known_precisions(arguments.precisions)
    grid = product(backends, precisions, arguments.threads or (None,), arguments.batch_sizes)
    worker = (settings.device, settings.python, settings.worker_timeout)
    setups = [
        Setup(backend, precision, batch_size, threads, *worker)
        for backend, precision, threads, batch_size in dict.fromkeys(grid)
    ]
    result = bench(
        model,
        setups,
        repeats=arguments.repeats,
        seconds=arguments.seconds,
        progress=Progress(quiet=arguments.quiet),
        command=command_line(arguments),
    )
    print(describe(result))
    if arguments.output is not None:
        result.save(arguments.output)
        print(f"\nfigures: {arguments.output}")
    ran = any(timing.problem is None for timing in result.timings)
    return EXIT_OK if ran else EXIT_USER_ERROR


def _backends_of(files: dict[str, str]) -> list[str]:
    """Return the backends that a model names files for; the default one if any file will do."""
    backends = dict.fromkeys(key.partition(":")[0] for key in files)
    return [name for name in backends if name != "any"] or ["onnxruntime"]


def _known_precisions(names: tuple[str, ...]) -> list[Precision]:
    from evalkit.backends.base import PRECISIONS
    from evalkit.core.errors import InputError

    unknown = sorted(set(names) - set(PRECISIONS))
    if unknown:
        raise InputError(
            f"--precisions: there is no precision {unknown[0]!r}; known: {', '.join(PRECISIONS)}."
        )
    return [precision for precision in PRECISIONS if precision in names]


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise argparse.ArgumentTypeError("give at least one name")
    return names


def _counts(text: str) -> tuple[int, ...]:
    return tuple(count(part) for part in text.split(","))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds
