"""``evalkit bench``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from evalkit.cli.options import Options, add_quiet, command_line, resolve
from evalkit.core.option import Option
from evalkit.core.settings import MODEL, OUTPUT, RunSettings

EPILOG = """\
examples:
  evalkit bench                                    the embedded network on its backends
  evalkit bench --model r50.yaml --backends onnxruntime,openvino --precisions fp32,int8
  evalkit bench --model r50.onnx --batch-sizes 1,8,32 --threads 1,2,4 --output bench.json

All configurations are open at the same time and take turns: other work on the machine slows all of
them. A configuration that cannot run does not stop the others; the table says why.
"""

_GRID = "configurations: every combination is timed"
_TIMING = "timing"


class BenchSettings(RunSettings):
    """Settings of ``evalkit bench``."""

    shared = frozenset({"architecture", "layout", "python", "worker_timeout", "device"})

    model: Annotated[
        str,
        Option(
            "model file, model YAML, or its name",
            MODEL,
            "cell",
            "FILE",
            default="the embedded network",
        ),
    ] = "sample-recognition"
    backends: Annotated[
        tuple[str, ...] | None,
        Option("runtimes", _GRID, "run", "NAME,...", default="those that the model has files for"),
    ] = Field(default=None, min_length=1)
    precisions: Annotated[
        tuple[Literal["fp32", "fp16", "bf16", "int8"], ...],
        Option("precisions", _GRID, "run", "NAME,..."),
    ] = ("fp32",)
    batch_sizes: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...], Option("images in a run", _GRID, "run", "N,...")
    ] = (1, 8, 32)
    thread_counts: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...] | None,
        Option(
            "threads of the runtime",
            _GRID,
            "run",
            "N,...",
            default="all cores",
            option="--threads",
        ),
    ] = None
    repeats: Annotated[int, Option("rounds", _TIMING, "run", "N")] = Field(default=5, ge=1)
    seconds: Annotated[
        float, Option("least time of each configuration in each round", _TIMING, "run", "S")
    ] = Field(default=1.0, gt=0, allow_inf_nan=False)
    output: Annotated[
        Path | None, Option("write the figures here", OUTPUT, "file", "JSON", writes="file")
    ] = None

    @field_validator("backends", "precisions", "batch_sizes", "thread_counts")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        return None if values is None else tuple(dict.fromkeys(values))


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    options = Options(parser)
    for title in (MODEL, _GRID, _TIMING, OUTPUT):
        options.group(title)
    options.add(BenchSettings)
    add_quiet(options.group(OUTPUT))


def run(arguments: argparse.Namespace) -> int:
    """Time every combination, print the table, write the figures."""
    from itertools import product

    from evalkit.bench import Setup, bench
    from evalkit.core.errors import EXIT_OK, EXIT_USER_ERROR
    from evalkit.core.progress import Progress
    from evalkit.core.settings import load_model_config
    from evalkit.core.validation import check_written
    from evalkit.report.bench import describe

    settings = resolve(arguments, BenchSettings)
    check_written(settings)
    model = load_model_config(settings.model, settings)
    backends = settings.backends or _backends_of(model.files)
    threads = settings.thread_counts or (None,)
    grid = product(backends, settings.precisions, threads, settings.batch_sizes)
    worker = (settings.device, settings.python, settings.worker_timeout)
    result = bench(
        model,
        [
            Setup(backend, precision, size, count, *worker)
            for backend, precision, count, size in grid
        ],
        repeats=settings.repeats,
        seconds=settings.seconds,
        progress=Progress(quiet=arguments.quiet),
        command=command_line(arguments),
    )
    print(describe(result))
    if settings.output is not None:
        result.save(settings.output)
        print(f"\nfigures: {settings.output}")
    ran = any(timing.problem is None for timing in result.timings)
    return EXIT_OK if ran else EXIT_USER_ERROR


def _backends_of(files: dict[str, str]) -> list[str]:
    """Return the backends that a model names files for; the default one if any file will do."""
    backends = dict.fromkeys(key.partition(":")[0] for key in files)
    return [name for name in backends if name != "any"] or ["onnxruntime"]
