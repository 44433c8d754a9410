"""How much of a session's own rate the pipeline keeps.

The same open session, with the same threads, runs (a) alone over batches that are ready in
memory and (b) under the pipeline: decode, align, normalise, mirror, infer, store. The two
alternate, and the ratio of the medians is printed.

    python benchmarks/pipeline.py                                  # the embedded sample
    python benchmarks/pipeline.py --data RELEASE --model MODEL --backend torch
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from evalkit.core.machine import available_cores
from evalkit.core.settings import RunSettings, load_model_config
from evalkit.core.store import Store
from evalkit.datasets.ijb import load_ijb
from evalkit.datasets.sample import sample_path
from evalkit.run.embedder import Embedder
from evalkit.run.filling import fill_store
from evalkit.run.inference import SAMPLE_MODEL
from evalkit.run.models import OpenModel, open_model
from evalkit.run.pipeline import ImageSource, read_images


def alone(model: OpenModel, embedder: Embedder, source: ImageSource) -> float:
    """Seconds a face of the session over ready batches, originals and mirror images."""
    size = embedder.task_size
    images, _ = read_images(source, range(size))
    ready = embedder.prepare(images, size).tensor
    mirrored = embedder.normalise.flipped(ready)
    rounds = len(source) // size
    start = time.perf_counter()
    for _ in range(rounds):
        model.session.run(ready)
        model.session.run(mirrored)
    return (time.perf_counter() - start) / (rounds * size)


def piped(embedder: Embedder, source: ImageSource) -> float:
    """Seconds a face under the pipeline."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store", {}, len(source), embedder.fields)
        start = time.perf_counter()
        with store.writing():
            fill_store(
                store,
                list(store.starts),
                source,
                embedder,
                decode_threads=available_cores(),
                max_failures=len(source),
                advance=lambda _: None,
            )
        return (time.perf_counter() - start) / len(source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--mean", type=lambda text: tuple(map(float, text.split(","))))
    parser.add_argument("--std", type=lambda text: tuple(map(float, text.split(","))))
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    run = RunSettings(
        model=arguments.model, backend=arguments.backend, mean=arguments.mean, std=arguments.std
    )
    release = load_ijb(arguments.data or sample_path("ijbc"), "IJBC")
    source = release.faces()
    with open_model(run, load_model_config(run.model or SAMPLE_MODEL, run)) as model:
        embedder = Embedder(
            model.session,
            model.config.input,
            flip=True,
            output=model.config.output,
            batch_size=arguments.batch_size,
        )
        alone(model, embedder, source)
        ratios = []
        for _ in range(arguments.repeats):
            session = alone(model, embedder, source)
            pipeline = piped(embedder, source)
            ratios.append(session / pipeline)
            print(
                f"session alone {1 / session:7.1f} faces/s, pipeline {1 / pipeline:7.1f} faces/s, "
                f"ratio {ratios[-1]:.3f}"
            )
    print(
        f"{model.info.name} on {arguments.backend}, {model.session.ran.threads} threads, batch "
        f"{embedder.task_size}, {len(source)} faces: median ratio {statistics.median(ratios):.3f} "
        f"(from {np.min(ratios):.3f} to {np.max(ratios):.3f}); at least 0.9 is wanted"
    )


if __name__ == "__main__":
    main()
