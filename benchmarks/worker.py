"""What a worker process costs: the same session in this process and in a worker, in turns.

    python benchmarks/worker.py [MODEL] [--backend onnxruntime] [--threads 2]

The overhead is the median of the pairs' differences, over the median time in this process. The
round trip alone is that of a batch which the worker refuses at once.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from pathlib import Path

import numpy as np

import evalkit.datasets.sample
from evalkit.backends import BACKENDS
from evalkit.backends.base import Session, SessionOptions
from evalkit.backends.worker.process import Worker
from evalkit.backends.worker.session import WorkerSession
from evalkit.core.errors import InputError

IMAGE = (3, 112, 112)


def seconds(session: Session, batch: np.ndarray) -> float:
    """Time one run; a refusal counts."""
    start = time.perf_counter()
    with contextlib.suppress(InputError):
        session.run(batch)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sample = Path(evalkit.datasets.sample.__path__[0]) / "recognition.onnx"
    parser.add_argument("model", type=Path, nargs="?", default=sample)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=40)
    chosen = parser.parse_args()
    options = SessionOptions(threads=chosen.threads, image=IMAGE)
    batch = np.random.default_rng(0).uniform(-1, 1, (chosen.batch_size, *IMAGE)).astype(np.float32)
    wrong = batch.reshape(-1, 12, 56, 56)
    backend = BACKENDS.get(chosen.backend)
    worker = Worker(sys.executable, threads=chosen.threads)
    with (
        backend.open(chosen.model, options) as plain,
        WorkerSession(chosen.backend, chosen.model, options, worker) as proxied,
    ):
        for session in (plain, proxied):
            seconds(session, batch)
        # Pairs, whose order alternates: a busy machine then slows both alike.
        pairs = []
        for number in range(chosen.rounds):
            order = (plain, proxied) if number % 2 else (proxied, plain)
            took = {id(session): seconds(session, batch) for session in order}
            pairs.append((took[id(plain)], took[id(proxied)]))
        trip = statistics.median(seconds(proxied, wrong) for _ in range(chosen.rounds))
    here = statistics.median(first for first, _ in pairs)
    more = statistics.median(second - first for first, second in pairs)
    print(
        f"{chosen.model.name}, batch {batch.shape}, {chosen.threads} threads, {chosen.rounds} pairs"
    )
    print(f"in process    {here * 1e3:8.2f} ms a batch")
    print(f"in a worker   {(here + more) * 1e3:8.2f} ms a batch, overhead {more / here:+.1%}")
    print(f"round trip    {trip * 1e3:8.2f} ms, {trip / here:.1%} of inference")
    print(f"ratio {here / (here + more):.3f}")


if __name__ == "__main__":
    main()
