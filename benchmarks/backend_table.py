r"""A network on every backend at every precision: drift, accuracy, speed and size, as Markdown.

A model's YAML names the files: by ``BACKEND`` for fp32 and what the runtime makes of it when it
opens it, by ``BACKEND:PRECISION`` for what was built (``evalkit convert --yaml`` adds those). Each
cell is an ordinary evaluation in a process of its own, kept in --work, so that a second call only
computes what is missing; cosines are to torch at fp32, or else to the first backend at fp32. Speed
and size are the recognition model's; a detector adds its AP to the rows of the same mode.

    python benchmarks/backend_table.py --work table --detector sample-detection
    python benchmarks/backend_table.py --model r50.yaml --lfw lfw.bin --ijbc IJBC --work table
    python benchmarks/backend_table.py --model r50.yaml --detector scrfd.yaml --widerface WIDER \
        --model y1.yaml --python mxnet=.mxnet/bin/python --exclude torch:fp16 --work table
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evalkit.backends.base import PRECISIONS, Precision
from evalkit.bench import Setup, Timing, bench
from evalkit.core import machine as environment
from evalkit.core.errors import EvalkitError
from evalkit.core.progress import Progress
from evalkit.core.results import load_result
from evalkit.core.settings import ModelConfig, RunSettings, load_model_config
from evalkit.report.markdown import table
from evalkit.verdict.compare import compare

FIGURES = {
    "accuracy/insightface": "LFW accuracy %",
    "tar@far=1e-04": "TAR@1e-4 %",
    "ap/easy": "AP easy %",
    "ap/medium": "AP medium %",
    "ap/hard": "AP hard %",
}


@dataclass
class Cell:
    """A model on a backend at a precision: the result of each protocol, or why it does not run."""

    model: ModelConfig
    backend: str
    precision: Precision
    results: dict[str, Path] = field(default_factory=dict)
    problem: str = ""

    @property
    def mode(self) -> str:
        """As ``backend:precision``."""
        return f"{self.backend}:{self.precision}"


def cells(model: ModelConfig, exclude: Sequence[str]) -> list[Cell]:
    """List what the YAML has files for; int8 is never made of an fp32 file when it is opened."""
    backends = dict.fromkeys(key.partition(":")[0] for key in model.files)
    every = [
        Cell(model, backend, precision)
        for backend in backends
        for precision in PRECISIONS
        if f"{backend}:{precision}" in model.files
        or (backend in model.files and precision != "int8")
    ]
    return [cell for cell in every if not {cell.mode, cell.backend} & set(exclude)]


def evaluate(cell: Cell, protocol: str, words: list[str], work: Path) -> None:
    """Run one evaluation, unless it was run before."""
    out = work / f"{protocol}.{cell.model.name}.{cell.backend}.{cell.precision}.json"
    if not out.is_file():
        command = [sys.executable, "-m", "evalkit", protocol, *words, "--output", str(out)]
        command += ["--backend", cell.backend, "--precision", cell.precision, "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            cell.problem = lines[-1].removeprefix(f"evalkit {protocol}: ")
            return
    cell.results[protocol] = out


def evaluate_all(found: Sequence[Cell], name: str, arguments: argparse.Namespace) -> None:
    """Run the protocols of a model's cells."""
    interpreters = dict(arguments.python)
    for cell in found:
        protocols = ("lfw", "ijbc") if cell.model.head == "embedding" else ("widerface",)
        for protocol in protocols:
            data = getattr(arguments, protocol)
            words = ["--model", name, "--threads", str(arguments.threads)]
            words += [] if data is None else ["--data", str(data)]
            if protocol == "widerface" and arguments.events:
                words += ["--events", arguments.events]
            if cell.backend in interpreters:
                words += ["--python", interpreters[cell.backend]]
            if not cell.problem:
                arguments.progress.say(f"{protocol}: {cell.model.name} {cell.mode}")
                evaluate(cell, protocol, words, arguments.work)


def cosine_p1(cell: Cell, reference: Cell) -> str:
    for protocol in ("ijbc", "lfw"):
        if protocol in cell.results and protocol in reference.results:
            drift = compare(reference.results[protocol], cell.results[protocol]).drift
            least = [part.cosine_p1 for part in drift if part.cosine_p1 is not None]
            return f"{min(least):.5f}" if least else "-"
    return "-"


def time_all(good: Sequence[Cell], arguments: argparse.Namespace) -> tuple[Timing, ...]:
    """Time every cell of one model at every batch size, in turns."""
    interpreters = dict(arguments.python)
    setups = [
        Setup(
            cell.backend,
            cell.precision,
            size,
            arguments.threads,
            python=Path(interpreters[cell.backend]) if cell.backend in interpreters else None,
        )
        for cell in good
        for size in arguments.batch_sizes
    ]
    options = {"repeats": arguments.repeats, "seconds": arguments.seconds}
    return bench(good[0].model, setups, progress=arguments.progress, **options).timings


def row(
    cell: Cell,
    detector: Cell | None,
    reference: Cell,
    timings: tuple[Timing, ...],
    sizes: list[int],
) -> list[str]:
    paths = [*cell.results.values(), *(detector.results.values() if detector else ())]
    results = [load_result(path) for path in paths]
    ran = results[0].ran.precision_ran
    held_figures = {metric.name: metric.value for result in results for metric in result.metrics}
    figures = [held_figures.get(name) for name in FIGURES]
    held = {
        timing.batch_size: timing
        for timing in timings
        if (timing.backend, timing.precision) == (cell.backend, cell.precision)
    }
    rates = [held[size].images_per_second if size in held else None for size in sizes]
    megabytes = next((t.model_mb for t in held.values() if t.model_mb is not None), None)
    return [
        cell.model.name,
        cell.backend,
        cell.precision if cell.precision == ran else f"{cell.precision} (ran {ran})",
        cosine_p1(cell, reference),
        *("-" if value is None else f"{100 * value:.2f}" for value in figures),
        *("-" if rate is None else f"{rate.median:,.0f}" for rate in rates),
        "-" if megabytes is None else f"{megabytes:.1f}",
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", help="recognition; repeatable")
    parser.add_argument("--detector", help="its AP joins the first model's rows")
    parser.add_argument("--lfw", type=Path, help="a .bin (the embedded sample)")
    parser.add_argument("--ijbc", type=Path, help="an IJB-C release (the embedded sample)")
    parser.add_argument("--widerface", type=Path, help="for the detector (the embedded sample)")
    parser.add_argument("--events", help="some events of WIDER FACE")
    parser.add_argument("--work", type=Path, required=True, help="results are kept there")
    parser.add_argument("--exclude", action="append", default=[], metavar="BACKEND[:PRECISION]")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        type=lambda text: tuple(text.split("=", 1)),
        metavar="BACKEND=FILE",
        help="run a backend in a worker of that interpreter",
    )
    parser.add_argument(
        "--batch-sizes",
        type=lambda text: [int(size) for size in text.split(",")],
        default=[1, 8, 32],
    )
    parser.add_argument("--threads", type=int, default=environment.available_cores())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    arguments.progress = Progress()
    models = {
        name: load_model_config(name, RunSettings())
        for name in arguments.model or ["sample-recognition"]
    }
    detectors: list[Cell] = []
    if arguments.detector:
        detectors = cells(load_model_config(arguments.detector, RunSettings()), arguments.exclude)
        evaluate_all(detectors, arguments.detector, arguments)
    rows, failed, notes = [], [cell for cell in detectors if cell.problem], []
    held = {cell.mode: cell for cell in detectors if not cell.problem}
    for name, model in models.items():
        found = cells(model, arguments.exclude)
        evaluate_all(found, name, arguments)
        failed += [cell for cell in found if cell.problem]
        good = [cell for cell in found if not cell.problem]
        if not good:
            continue
        reference = next((cell for cell in good if cell.mode == "torch:fp32"), good[0])
        notes.append(f"{model.name} against {reference.mode}")
        timings = time_all(good, arguments)
        beside = held if model is next(iter(models.values())) else {}
        sizes = arguments.batch_sizes
        rows += [row(c, beside.get(c.mode), reference, timings, sizes) for c in good]
    header = ["model", "backend", "precision", "cosine p1", *FIGURES.values()]
    header += [f"images/s at {size}" for size in arguments.batch_sizes]
    print(table([*header, "model MB"], rows))
    machine = environment.describe()
    print(f"\n{machine['cpu']}, {arguments.threads} threads; cosines of {', '.join(notes)}.")
    for cell in failed:
        print(f"- not run: {cell.model.name} on {cell.mode}: {cell.problem}")


if __name__ == "__main__":
    try:
        main()
    except EvalkitError as error:
        raise SystemExit(str(error)) from error
