"""How much of a runtime's own rate its session keeps.

For each backend that is here and that the model has a file for, the session alternates with a bare
loop over the runtime's own API: the same file, threads and batch, in one process. The ratio of each
pair of turns is taken, and their median printed: by the clock, and by processor time, which a busy
machine disturbs less.

    python benchmarks/backends.py                                   # the embedded network
    python benchmarks/backends.py --model r50.yaml --threads 2 --batch-sizes 1,8,32
"""

# ruff: noqa: PLC0415 - only the runtimes that are here

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import Session
from evalkit.bench import random_batch
from evalkit.core.errors import EvalkitError
from evalkit.core.machine import available_cores
from evalkit.core.settings import ModelConfig, RunSettings, load_model_config
from evalkit.report.table import text_table
from evalkit.run.models import open_model

Call = Callable[[NDArray[Any]], Any]


def bare_onnxruntime(session: Any, file: Path, threads: int) -> Call:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    own = ort.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    name = own.get_inputs()[0].name
    return lambda batch: own.run(None, {name: batch})


def bare_openvino(session: Any, file: Path, threads: int) -> Call:
    import openvino as ov

    settings = {
        "INFERENCE_PRECISION_HINT": session.ran.details["inference_precision_hint"],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }
    request = ov.Core().compile_model(file, "CPU", settings).create_infer_request()
    return lambda batch: request.infer({0: batch}, share_inputs=True)


def bare_torch(session: Any, file: Path, threads: int) -> Call:
    import torch

    torch.set_num_threads(threads)
    module = torch.jit.load(str(file)).to(memory_format=torch.channels_last).eval()

    def call(batch: NDArray[Any]) -> Any:
        with torch.inference_mode():
            given = torch.from_numpy(batch).contiguous(memory_format=torch.channels_last)
            return module(given).numpy()

    return call


def bare_tvm(session: Any, file: Path, threads: int) -> Call:
    """Call the session's own compiled program: compiling it again would take minutes."""
    import tvm

    def call(batch: NDArray[Any]) -> Any:
        main, _ = session._program(batch.shape)
        result = main(tvm.runtime.tensor(batch))
        return [value.numpy() for value in (result if isinstance(result, list) else [result])]

    return call


def bare_caffe(session: Any, file: Path, threads: int) -> Call:
    import cv2

    prototxt, weights = file.with_suffix(".prototxt"), file.with_suffix(".caffemodel")
    network = cv2.dnn.readNetFromCaffe(str(prototxt), str(weights))
    names = network.getUnconnectedOutLayersNames()
    cv2.setNumThreads(threads)

    def call(batch: NDArray[Any]) -> Any:
        network.setInput(batch)
        return [value.copy() for value in network.forward(names)]

    return call


BARE = {
    "caffe": bare_caffe,
    "onnxruntime": bare_onnxruntime,
    "openvino": bare_openvino,
    "torch": bare_torch,
    "tvm": bare_tvm,
}


def seconds(call: Call, batch: NDArray[Any], runs: int) -> NDArray[np.float64]:
    """Time some runs: by the clock, and of all of the process's threads."""
    start = time.perf_counter(), time.process_time()
    for _ in range(runs):
        call(batch)
    return np.array([time.perf_counter() - start[0], time.process_time() - start[1]])


def timer(session: Session) -> Callable[[Call, NDArray[Any], int], NDArray[np.float64]]:
    """Choose the thread of the bare loop: TVM's threads belong to the one that calls it."""
    own = getattr(session, "_thread", None)
    return seconds if own is None else lambda *given: own.submit(seconds, *given).result()


def compare(
    session: Session, bare: Call, batch: NDArray[Any], turns: int, turn_s: float
) -> tuple[NDArray[np.float64], float]:
    """Rates of the session over those of the bare loop, (turns, 2), and its images a second."""
    timed = timer(session)
    for _ in range(2):
        session.run(batch)
        once = timed(bare, batch, 1)[0]
    runs = max(1, round(turn_s / max(once, 1e-6)))
    ratios, spent = [], 0.0
    for turn in range(turns):
        if turn % 2:
            own, plain = seconds(session.run, batch, runs), timed(bare, batch, runs)
        else:
            plain, own = timed(bare, batch, runs), seconds(session.run, batch, runs)
        ratios.append(plain / own)
        spent += own[0]
    return np.array(ratios), turns * runs * len(batch) / spent


def measure(
    model: ModelConfig, fields: dict[str, Any], sizes: list[int], turns: int, turn_s: float
) -> list[list[str]]:
    """Compare one backend at some batch sizes; rows of the table."""
    rows = []
    name, threads = fields["backend"], fields["threads"]
    with open_model(RunSettings.model_validate(fields), model) as opened:
        session = opened.session
        bare = BARE[name](session, Path(opened.info.file or ""), threads)
        for size in sizes:
            batch = random_batch(session, model, size)
            ratios, rate = compare(session, bare, batch, turns, turn_s)
            low, clock, high = np.percentile(ratios[:, 0], [25, 50, 75])
            processor = np.median(ratios[:, 1])
            cells = [f"{clock:.3f}", f"{low:.3f}..{high:.3f}", f"{processor:.3f}"]
            rows.append([name, str(size), f"{rate:,.1f}", *cells])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="sample-recognition")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "int8"])
    parser.add_argument("--backends", default=",".join(BARE))
    parser.add_argument("--batch-sizes", default="1,8,32")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--turns", type=int, default=21)
    parser.add_argument("--turn-seconds", type=float, default=0.1)
    arguments = parser.parse_args()
    model = load_model_config(arguments.model, RunSettings())
    sizes = [int(size) for size in arguments.batch_sizes.split(",")]
    rows = []
    for name in arguments.backends.split(","):
        fields = {"backend": name, "precision": arguments.precision, "threads": arguments.threads}
        try:
            rows += measure(model, fields, sizes, arguments.turns, arguments.turn_seconds)
        except EvalkitError as error:
            print(f"{name}: {error}")
    header = ["backend", "batch", "images/s", "ratio", "quartiles", "by processor time"]
    print(text_table(header, rows))
    print(
        f"{model.name} at {arguments.precision}, {arguments.threads} threads, {arguments.turns} "
        f"turns: least median ratio {min(float(row[3]) for row in rows):.3f} by the clock, "
        f"{min(float(row[5]) for row in rows):.3f} by processor time; at least 0.97 is wanted"
    )


if __name__ == "__main__":
    main()
