"""How much of a detector's own rate the pipeline keeps.

The same open session, with the same threads, runs (a) alone over the very batches that the
pipeline would give it, ready in memory, and (b) under the pipeline: decode, size, normalise,
infer, decode boxes, suppress, store. The two alternate. Two ratios are printed of each round, as
medians and of the best rounds: of the rates by wall clock, and of the processor time an image.
Other work on the machine only ever slows a round down: the best ones are the least disturbed.

    python benchmarks/detection_pipeline.py                              # the embedded sample
    python benchmarks/detection_pipeline.py --data WIDER --events 22--Picnic --model MODEL.yaml
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from evalkit.core.machine import available_cores
from evalkit.core.settings import load_model_config
from evalkit.core.store import Store
from evalkit.datasets.sample import sample_path
from evalkit.datasets.widerface import WiderImages, load_widerface
from evalkit.run.detecting import Detector
from evalkit.run.detector import SAMPLE_MODEL, open_detector
from evalkit.run.filling import fill_store
from evalkit.run.pipeline import Tensor, read_images
from evalkit.tasks.widerface.settings import WiderFaceSettings


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds by the clock, and of the processors together."""

    wall: float
    cpu: float

    def least(self, other: Cost) -> Cost:
        """Return the smaller of each."""
        return Cost(min(self.wall, other.wall), min(self.cpu, other.cpu))


class Stopwatch:
    """Measures a `Cost` from its making."""

    def __init__(self) -> None:
        self.start = Cost(time.perf_counter(), time.process_time())

    def cost(self) -> Cost:
        """Return what has passed since."""
        return Cost(time.perf_counter() - self.start.wall, time.process_time() - self.start.cpu)


def ready_batches(detector: Detector, images: WiderImages) -> list[Tensor]:
    """Every batch of the pipeline, in memory."""
    batches = []
    for first in range(0, len(images), detector.task_size):
        task = range(first, min(first + detector.task_size, len(images)))
        pixels, _ = read_images(images, task)
        batches += [tensor for tensor, _ in detector.prepare(pixels, len(task))]
    return batches


def alone(detector: Detector, batches: list[Tensor], rounds: int) -> Cost:
    """Run the session over ready batches."""
    watch = Stopwatch()
    for _ in range(rounds):
        for batch in batches:
            detector.session.run(batch)
    return watch.cost()


def piped(detector: Detector, images: WiderImages) -> Cost:
    """Go the whole way."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store", {}, len(images), detector.fields, detector.shard_size)
        watch = Stopwatch()
        with store.writing():
            fill_store(
                store,
                list(store.starts),
                images,
                detector,
                decode_threads=available_cores(),
                max_failures=0,
                advance=lambda _: None,
            )
        return watch.cost()


def summary(name: str, values: list[float]) -> str:
    return f"{name} {statistics.median(values):.3f} (from {min(values):.3f} to {max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--events", type=lambda text: tuple(text.split(",")), default=())
    parser.add_argument("--model")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--sizing")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3, help="how often each image occurs")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    config = WiderFaceSettings(
        model=options.model,
        backend=options.backend,
        sizing=options.sizing,
        batch_size=options.batch_size,
    )
    root = options.data or sample_path("widerface")
    once = load_widerface(root, events=options.events or None).images
    images = once.take(list(range(len(once))) * options.rounds)
    model_config = load_model_config(config.model or SAMPLE_MODEL, config)
    if config.sizing is not None:
        model_config = model_config.model_copy(update={"sizing": config.sizing})
    with open_detector(config, model_config, {}) as opened:
        detector = opened.detector
        batches = ready_batches(detector, once)
        alone(detector, batches, 1)
        piped(detector, once)
        wall, cpu = [], []
        best = {"session": Cost(math.inf, math.inf), "pipeline": Cost(math.inf, math.inf)}
        for _ in range(options.repeats):
            session = alone(detector, batches, options.rounds)
            pipeline = piped(detector, images)
            best["session"] = best["session"].least(session)
            best["pipeline"] = best["pipeline"].least(pipeline)
            wall.append(session.wall / pipeline.wall)
            cpu.append(session.cpu / pipeline.cpu)
            print(
                f"images/s: session alone {len(images) / session.wall:6.2f}, pipeline "
                f"{len(images) / pipeline.wall:6.2f}, ratio {wall[-1]:.3f}; CPU ms an image: "
                f"{1000 * session.cpu / len(images):6.2f}, {1000 * pipeline.cpu / len(images):6.2f}"
                f", ratio {cpu[-1]:.3f}",
                flush=True,
            )
    print(
        f"{opened.model.info.name} on {options.backend}, "
        f"{opened.model.session.ran.threads} threads, {len(images)} images: median ratio of "
        f"{summary('rates', wall)}, of {summary('CPU time', cpu)}; of the best rounds "
        f"{best['session'].wall / best['pipeline'].wall:.3f} and "
        f"{best['session'].cpu / best['pipeline'].cpu:.3f}; at least 0.9 is wanted"
    )


if __name__ == "__main__":
    main()
