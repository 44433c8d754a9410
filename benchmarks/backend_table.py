"""One model on every backend and at every precision: accuracy, drift, speed and size, as Markdown.

The model's YAML names the files: by ``BACKEND`` for fp32 and what the runtime makes of it when it
opens it, by ``BACKEND:PRECISION`` for what was built (``evalkit convert --yaml`` adds those). Each
cell is an ordinary evaluation in a process of its own, kept in --work, so that a second call only
computes what is missing; cosines are to torch at fp32, or else to the first backend at fp32.

    python benchmarks/backend_table.py --model sample-recognition --work table
    python benchmarks/backend_table.py --model r50.yaml --lfw lfw.bin --ijbc IJBC --work table
    python benchmarks/backend_table.py --model scrfd.yaml --widerface WIDER --work table
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from evalkit import environment
from evalkit.backends.base import PRECISIONS, Precision
from evalkit.bench import Setup, Timing, measure
from evalkit.compare import compare
from evalkit.config import ModelConfig, RunConfig, load_model_config
from evalkit.errors import EvalkitError
from evalkit.progress import Progress
from evalkit.report.markdown import table
from evalkit.results import Result, load_result

FIGURES = {
    "lfw": ("accuracy/insightface",),
    "ijbc": ("tar@far=1e-04",),
    "widerface": ("ap/easy", "ap/medium", "ap/hard"),
}
TITLES = {
    "accuracy/insightface": "LFW accuracy %",
    "tar@far=1e-04": "TAR@1e-4 %",
    "ap/easy": "AP easy %",
    "ap/medium": "AP medium %",
    "ap/hard": "AP hard %",
}


@dataclass
class Cell:
    """A backend at a precision: the result of each protocol, or why it does not run."""

    backend: str
    precision: Precision
    results: dict[str, Path] = field(default_factory=dict)
    problem: str = ""


def cells(model: ModelConfig) -> list[Cell]:
    """List what the YAML has files for; int8 is never made of an fp32 file when it is opened."""
    backends = dict.fromkeys(key.partition(":")[0] for key in model.files)
    return [
        Cell(backend, precision)
        for backend in backends
        for precision in PRECISIONS
        if f"{backend}:{precision}" in model.files
        or (backend in model.files and precision != "int8")
    ]


def evaluate(cell: Cell, protocol: str, words: list[str], work: Path) -> None:
    """Run one evaluation, unless it was run before."""
    out = work / f"{protocol}.{cell.backend}.{cell.precision}.json"
    if not out.is_file():
        command = [sys.executable, "-m", "evalkit", protocol, *words, "--output", str(out)]
        command += ["--backend", cell.backend, "--precision", cell.precision, "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            cell.problem = lines[-1].removeprefix(f"evalkit {protocol}: ")
            return
    cell.results[protocol] = out


def cosine_p1(cell: Cell, reference: Cell) -> str:
    for protocol in ("ijbc", "lfw"):
        if protocol in cell.results and protocol in reference.results:
            drift = compare(reference.results[protocol], cell.results[protocol]).drift
            least = [part.cosine_p1 for part in drift if part.cosine_p1 is not None]
            return f"{min(least):.5f}" if least else "-"
    return "-"


def rates(cell: Cell, timings: tuple[Timing, ...], sizes: list[int]) -> list[str]:
    held = {t.batch_size: t for t in timings if (t.backend, t.precision) == key(cell)}
    found = [held[size].images_per_second if size in held else None for size in sizes]
    return ["-" if rate is None else f"{rate.median:,.0f}" for rate in found]


def key(cell: Cell) -> tuple[str, str]:
    return cell.backend, cell.precision


def row(
    cell: Cell, reference: Cell, timings: tuple[Timing, ...], sizes: list[int], names: list[str]
) -> list[str]:
    results: list[Result] = [load_result(path) for path in cell.results.values()]
    figures = {metric.name: metric.value for result in results for metric in result.metrics}
    shown = [figures.get(name) for name in names]
    held = [t.model_mb for t in timings if (t.backend, t.precision) == key(cell)]
    megabytes = next((size for size in held if size is not None), None)
    return [
        cell.backend,
        cell.precision,
        results[0].ran.precision_ran,
        cosine_p1(cell, reference),
        *("-" if value is None else f"{100 * value:.2f}" for value in shown),
        *rates(cell, timings, sizes),
        "-" if megabytes is None else f"{megabytes:.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="sample-recognition")
    parser.add_argument("--protocols", help="lfw,ijbc for embeddings; widerface for a detector")
    parser.add_argument("--lfw", type=Path, help="a .bin (the embedded sample)")
    parser.add_argument("--ijbc", type=Path, help="an IJB-C release (the embedded sample)")
    parser.add_argument("--widerface", type=Path, help="for a detector (the embedded sample)")
    parser.add_argument("--work", type=Path, required=True, help="results are kept there")
    parser.add_argument("--batch-sizes", default="1,8,32")
    parser.add_argument("--threads", type=int, default=environment.available_cores())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    model = load_model_config(arguments.model, RunConfig())
    sizes = [int(size) for size in arguments.batch_sizes.split(",")]
    usual = "lfw,ijbc" if model.head == "embedding" else "widerface"
    protocols = (arguments.protocols or usual).split(",")
    progress = Progress()
    found = cells(model)
    for cell in found:
        for protocol in protocols:
            data = getattr(arguments, protocol)
            words = ["--model", arguments.model, "--threads", str(arguments.threads)]
            words += [] if data is None else ["--data", str(data)]
            if not cell.problem:
                progress.say(f"{protocol}: {cell.backend} {cell.precision}")
                evaluate(cell, protocol, words, arguments.work)
    good = [cell for cell in found if not cell.problem]
    if not good:
        raise SystemExit(
            "\n".join(f"{cell.backend} {cell.precision}: {cell.problem}" for cell in found)
        )
    reference = next((cell for cell in good if key(cell) == ("torch", "fp32")), good[0])
    setups = [
        Setup(cell.backend, cell.precision, size, arguments.threads)
        for cell in good
        for size in sizes
    ]
    timings = measure(
        model, setups, repeats=arguments.repeats, seconds=arguments.seconds, progress=progress
    )
    names = [name for protocol in protocols for name in FIGURES[protocol]]
    header = ["backend", "precision", "ran", "cosine p1", *(TITLES[name] for name in names)]
    header += [f"images/s at {size}" for size in sizes]
    rows = [row(cell, reference, timings, sizes, names) for cell in good]
    print(table([*header, "model MB"], rows))
    machine = environment.describe()
    print(
        f"\n{model.name}; {machine['cpu']}, {arguments.threads} threads; cosines to "
        f"{reference.backend} at {reference.precision}."
    )
    for cell in found:
        if cell.problem:
            print(f"- not run: {cell.backend} at {cell.precision}: {cell.problem}")


if __name__ == "__main__":
    try:
        main()
    except EvalkitError as error:
        raise SystemExit(str(error)) from error
