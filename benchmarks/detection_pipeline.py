"""How much of a detector's own rate the pipeline keeps.

The same open session, with the same threads, runs (a) alone over the very batches that the
pipeline would give it, ready in memory, and (b) under the pipeline: decode, size, normalise,
infer, decode boxes, suppress, store. The two alternate, and the median of the ratios is printed.

    python benchmarks/detection_pipeline.py                              # the embedded sample
    python benchmarks/detection_pipeline.py --data WIDER --events 22--Picnic --model MODEL.yaml
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from evalkit.config import WiderFaceConfig, load_model_config
from evalkit.datasets.sample import sample_path
from evalkit.datasets.widerface import WiderImages, load_widerface
from evalkit.detecting import FIELDS, SHARD, TASK, Detector, fill_detections
from evalkit.environment import available_cores
from evalkit.evaluations.detector import open_detector
from evalkit.evaluations.widerface import SAMPLE_MODEL
from evalkit.files import cache_dir
from evalkit.pipeline import Tensor, shard_tasks
from evalkit.store import Store


def ready_batches(detector: Detector, images: WiderImages) -> list[Tensor]:
    """Every batch of the pipeline, in memory."""
    store = Store(Path(tempfile.mkdtemp()), {}, len(images), FIELDS, SHARD)
    tasks = shard_tasks(store, list(store.starts), TASK)
    return [tensor for task in tasks for tensor, _ in detector.prepare(images, task).batches]


def alone(detector: Detector, batches: list[Tensor]) -> float:
    """Seconds of the session over ready batches."""
    start = time.perf_counter()
    for batch in batches:
        detector.session.run(batch)
    return time.perf_counter() - start


def piped(detector: Detector, images: WiderImages) -> float:
    """Seconds of the whole way."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store", {}, len(images), FIELDS, SHARD)
        start = time.perf_counter()
        with store.writing():
            fill_detections(
                store,
                list(store.starts),
                images,
                detector,
                decode_threads=available_cores(),
                max_failures=0,
                known=(),
                advance=lambda _: None,
            )
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--events", type=lambda text: tuple(text.split(",")), default=())
    parser.add_argument("--model")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--sizing")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3, help="how often each image occurs")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    config = WiderFaceConfig(
        model=options.model,
        backend=options.backend,
        sizing=options.sizing,
        batch_size=options.batch_size,
    )
    root = options.data or sample_path("widerface", cache_dir())
    images = load_widerface(root, events=options.events or None).images
    images = images.take(list(range(len(images))) * options.rounds)
    model_config = load_model_config(config.model or SAMPLE_MODEL, config)
    if config.sizing is not None:
        model_config = model_config.model_copy(update={"sizing": config.sizing})
    with open_detector(config, model_config, {}) as opened:
        detector = opened.detector
        batches = ready_batches(detector, images.take(range(len(images) // options.rounds)))
        alone(detector, batches[:2])
        ratios = []
        for _ in range(options.repeats):
            session = alone(detector, batches) * options.rounds
            pipeline = piped(detector, images)
            ratios.append(session / pipeline)
            print(
                f"session alone {len(images) / session:6.2f} images/s, "
                f"pipeline {len(images) / pipeline:6.2f} images/s, ratio {ratios[-1]:.3f}"
            )
    print(
        f"{opened.model.info.name} on {options.backend}, "
        f"{opened.model.session.ran.threads} threads, {len(images)} images: "
        f"median ratio {statistics.median(ratios):.3f} (from {min(ratios):.3f} to "
        f"{max(ratios):.3f}); at least 0.9 is wanted"
    )


if __name__ == "__main__":
    main()
