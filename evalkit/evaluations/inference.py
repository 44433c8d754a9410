"""From a data set's images to stored embeddings: what every recognition evaluation shares."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.backends import BACKENDS
from evalkit.backends.base import Session, SessionOptions
from evalkit.config import ModelConfig, RunConfig, load_model_config
from evalkit.environment import available_cores
from evalkit.errors import InputError, UnavailableError
from evalkit.files import cache_dir, sha256_file
from evalkit.pipeline import (
    Embedder,
    EmbedOptions,
    ImageSource,
    Normaliser,
    check_failures,
    fill_store,
)
from evalkit.progress import Progress
from evalkit.results import Failure, ModelInfo, RanInfo, Stage
from evalkit.store import Store, store_name

SAMPLE_MODEL = "sample-recognition"


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A session, and what it was opened from."""

    session: Session
    config: ModelConfig
    info: ModelInfo


@dataclass(frozen=True, slots=True)
class Embedded:
    """A filled store, and how it was filled."""

    store: Store
    model: ModelInfo
    ran: RanInfo
    stages: tuple[Stage, ...]
    failures: tuple[Failure, ...]
    content_sha256: str
    wall_seconds: float
    throughput: float | None

    def features(self, *, flip: bool) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """All embeddings, and those of the mirrored images if asked for; rows of NaN failed."""
        plain: NDArray[np.float32] | None = None
        mirrored: NDArray[np.float32] | None = None
        for span, shard in self.store.shards():
            if plain is None:
                size = shard.outputs["embeddings"].shape[1]
                plain = np.empty((self.store.samples, size), np.float32)
                mirrored = np.empty_like(plain) if flip else None
            plain[span] = shard.outputs["embeddings"]
            if mirrored is not None:
                mirrored[span] = shard.outputs["flipped"]
        if plain is None:
            raise InputError("There is no image to evaluate.")
        return plain, mirrored


@contextmanager
def open_model(run: RunConfig) -> Iterator[OpenModel]:
    """Open the run's model on its backend.

    Raises
    ------
    evalkit.errors.EvalkitError
        The model, the backend or the precision is not to be had, or the model's input is not
        what its configuration says.
    """
    backend = BACKENDS.get(run.backend)
    probe = backend.probe()
    if not probe.available:
        raise UnavailableError(f"Backend {run.backend!r}: {probe.reason} {probe.remedy}".rstrip())
    config = load_model_config(run.model or SAMPLE_MODEL, run)
    file = config.file_for(run.backend)
    options = SessionOptions(
        precision=run.precision,
        device=run.device,
        threads=run.threads or available_cores(),
        architecture=config.architecture,
    )
    info = ModelInfo(
        name=config.name,
        file=str(file),
        sha256=sha256_file(file) if file.is_file() else None,
        preprocessing={
            **config.input.model_dump(mode="json"),
            "head": config.head,
            "output": config.output,
        },
    )
    with backend.open(file, options) as session:
        _check_input(session, config, file)
        yield OpenModel(session, config, info)


def embed(
    source_of: Callable[[int], ImageSource],
    fingerprint: str,
    run: RunConfig,
    progress: Progress,
    *,
    flip: bool,
) -> Embedded:
    """Fill the outputs store of a run, resuming what an earlier run has left.

    Parameters
    ----------
    source_of : callable
        Gives the images at the side length that the model takes.
    fingerprint : str
        SHA-256 of the data set, with its selection.
    run : RunConfig
    progress : Progress
    flip : bool
        Whether mirrored images are run too.
    """
    with open_model(run) as model:
        session = model.session
        source = source_of(_side(model.config))
        key = {
            "data": fingerprint,
            "model": model.info.sha256,
            "preprocessing": model.info.preprocessing,
            "ran": {k: v for k, v in asdict(session.ran).items() if k not in {"threads", "notes"}},
        }
        folder = run.outputs_dir or cache_dir() / "outputs" / store_name({**key, "flip": flip})
        fields = ["embeddings", "flipped"] if flip else ["embeddings"]
        store = Store(folder, key, len(source), fields)
        starts = store.prepare(run.overwrite)
        todo = sum(len(range(len(source))[store.span(start)]) for start in starts)
        if todo < len(source):
            progress.say(f"resuming: {len(source) - todo:,} of {len(source):,} are in {folder}")
        begin = time.perf_counter()
        if starts:
            normalise = Normaliser(model.config.input, session.inputs[0].dtype)
            embedder = Embedder(session, normalise, flip=flip, output=model.config.output)
            options = EmbedOptions(
                session.inputs[0].batch or run.batch_size,
                run.decode_threads or available_cores(),
                run.max_failures,
            )
            with (
                store.writing(),
                progress.stage(
                    "decode + inference", len(source), "images", done=len(source) - todo
                ) as advance,
            ):
                fill_store(store, starts, source, embedder, options, advance)
        wall = time.perf_counter() - begin
        ran = _ran_info(session, session.inputs[0].batch or run.batch_size)
    return _summary(store, model.info, ran, todo, wall, run.max_failures)


def _side(config: ModelConfig) -> int:
    height, width = config.input.size
    if height != width:
        raise InputError(
            f"The model {config.name!r} takes {height} x {width} images, but aligned faces are "
            "square. Correct 'input.size' in its YAML."
        )
    return height


def _summary(
    store: Store, model: ModelInfo, ran: RanInfo, computed: int, wall: float, most: int
) -> Embedded:
    decode = inference = 0.0
    failures: list[Failure] = []
    content = hashlib.sha256()
    dimensions: dict[int, int] = {}
    for span, shard in store.shards():
        decode += shard.decode_seconds
        inference += shard.inference_seconds
        failures += shard.failures
        content.update(shard.digests.tobytes())
        dimensions.setdefault(shard.outputs["embeddings"].shape[1], span.start)
    if len(dimensions) > 1:
        raise InputError(
            f"{store.folder} holds embeddings of sizes {', '.join(map(str, dimensions))}. "
            "Compute them again with --overwrite always."
        )
    check_failures(failures, most, store)
    if len(failures) == store.samples:
        raise InputError(f"No image gave a usable embedding. {failures[0].reason}")
    reused = store.samples - computed
    return Embedded(
        store=store,
        model=model,
        ran=ran,
        stages=(
            Stage(name="decode + align", seconds=decode, items=store.samples, reused_items=reused),
            Stage(name="inference", seconds=inference, items=store.samples, reused_items=reused),
        ),
        failures=tuple(failures),
        content_sha256=content.hexdigest(),
        wall_seconds=wall,
        throughput=store.samples / inference if inference > 0 else None,
    )


def _ran_info(session: Session, batch_size: int) -> RanInfo:
    ran = asdict(session.ran)
    return RanInfo.model_validate({**ran, "batch_size": batch_size})


def _check_input(session: Session, config: ModelConfig, file: Path) -> None:
    """Refuse a model whose input is not the image that its configuration describes."""
    if len(session.inputs) != 1:
        named = ", ".join(info.name for info in session.inputs)
        raise InputError(
            f"{file} has {len(session.inputs)} inputs ({named}); one image is expected."
        )
    info = session.inputs[0]
    height, width = config.input.size
    wanted: tuple[Any, ...] = (
        (3, height, width) if config.input.layout == "nchw" else (height, width, 3)
    )
    fits = len(info.shape) == 4 and all(
        not isinstance(held, int) or held == want
        for held, want in zip(info.shape[1:], wanted, strict=False)
    )
    if not fits:
        raise InputError(
            f"{file} takes {info.name} of shape {list(info.shape)}, but its configuration says "
            f"{config.input.layout} with {list(wanted)} an image. Correct 'input' in the model's "
            "YAML, or --layout."
        )
