"""From a data set's images to stored outputs: what every evaluation shares."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.backends.outputs.backend import NAME as OUTPUTS
from evalkit.core.errors import CannotJudgeError, InputError
from evalkit.core.files import cache_dir
from evalkit.core.machine import available_cores
from evalkit.core.progress import Advance, Progress
from evalkit.core.results import Failure, ModelInfo, RanInfo, Stage
from evalkit.core.settings import RunSettings, load_model_config
from evalkit.core.store import SHARD, Store, held_layout, store_name
from evalkit.run.models import OpenModel, check_input, face_side, open_model
from evalkit.run.pipeline import (
    Embedder,
    EmbedOptions,
    ImageSource,
    Normaliser,
    check_failures,
    fill_store,
    unchanged,
)

SAMPLE_MODEL = "sample-recognition"
PREPARATION_VERSION = 1
"""Raised when decoding, alignment or normalisation changes what a model is fed."""


@dataclass(frozen=True, slots=True, eq=False)
class OpenImages:
    """The images of a data set, before any model.

    Attributes
    ----------
    source_of : callable
        Gives them, faces at the side length that it is asked for.
    name, fingerprint : str
        The data set's name, and the SHA-256 of which images there are.
    root : Path
        Where the data set lies; a sample of evalkit is marked there.
    """

    source_of: Callable[[int], ImageSource]
    name: str
    fingerprint: str
    root: Path


@dataclass(frozen=True, slots=True)
class Inferred:
    """A filled outputs store, and how it was filled.

    Attributes
    ----------
    store : Store
    model, ran
        For the result.
    stages : tuple of Stage
        Decoding (of one worker) and inference.
    failures : tuple of Failure
    content_sha256 : str
        Of the hashes of all samples, in order.
    throughput : float or None
        Samples a second of the session.
    """

    store: Store
    model: ModelInfo
    ran: RanInfo
    stages: tuple[Stage, ...]
    failures: tuple[Failure, ...]
    content_sha256: str
    throughput: float | None


@dataclass(frozen=True, slots=True)
class Todo:
    """What a run has to compute.

    Attributes
    ----------
    store : Store
    starts : list of int
        First samples of the shards.
    failures : tuple of Failure
        Those of the shards that the store holds.
    advance : callable
        To be told of each sample done.
    """

    store: Store
    starts: list[int]
    failures: tuple[Failure, ...]
    advance: Advance


def fill(
    model: OpenModel,
    source: ImageSource,
    fingerprint: str,
    run: RunSettings,
    progress: Progress,
    compute: Callable[[Todo], None],
    *,
    fields: Sequence[str],
    size: int = SHARD,
) -> Inferred:
    """Fill the outputs store of a run, resuming what an earlier run has left.

    Parameters
    ----------
    model : OpenModel
    source : ImageSource
    fingerprint : str
        SHA-256 of what says which images there are, and how they are prepared; the images'
        own content is checked shard by shard.
    run : RunSettings
    progress : Progress
    compute : callable
        Computes and writes the missing shards.
    fields : sequence of str
        Arrays of a shard.
    size : int
        Samples a shard, where neither an earlier run nor this one says.

    Raises
    ------
    evalkit.core.errors.CannotJudgeError
        With ``--overwrite never``: a shard is missing, or its images have changed.
    """
    ran = asdict(model.session.ran)
    key = _key(model, fingerprint)
    folder = run.outputs_dir or _store_folder(key, fields, len(source))
    held_size = (held_layout(folder) or (None, None))[1]
    store = Store(folder, key, len(source), fields, held_size or run.shard_size or size)
    always = run.overwrite == "always"
    valid = {} if always else store.valid(partial(unchanged, source))
    starts = [start for start in store.starts if start not in valid]
    if run.overwrite == "never" and starts:
        raise CannotJudgeError(
            f"{folder} holds {len(valid)} of {len(store.starts)} shards of these images, and "
            "--overwrite never computes none. Run it with only-missing."
        )
    todo = sum(len(range(len(source))[store.span(start)]) for start in starts)
    done = len(source) - todo
    if done:
        progress.say(f"resuming: {done:,} of {len(source):,} are in {folder}")
    if starts:
        failures = tuple(failure for held in valid.values() for failure in held)
        with (
            store.writing(),
            progress.stage("decode + inference", len(source), "images", done=done) as advance,
        ):
            store.write_names(source.name(index) for index in range(len(source)))
            compute(Todo(store, starts, failures, advance))
    # What ran elsewhere tells its own batch size and speed.
    elsewhere = run.backend == OUTPUTS
    batch_size = model.session.inputs[0].batch or run.batch_size
    if elsewhere:
        batch_size = ran["details"]["batch_size"]
    info = RanInfo.model_validate({**ran, "batch_size": batch_size})
    inferred = _summary(store, model.info, info, done, run.max_failures)
    if elsewhere:
        return replace(inferred, throughput=ran["details"]["throughput"])
    return inferred


def _key(model: OpenModel, fingerprint: str) -> dict[str, Any]:
    """Return what names a run: data, model, preparation, what ran."""
    ran = asdict(model.session.ran)
    return {
        "data": fingerprint,
        "model": model.info.sha256,
        "preprocessing": model.info.preprocessing,
        "preparation": {"version": PREPARATION_VERSION, "opencv": cv2.__version__},
        "ran": {name: value for name, value in ran.items() if name not in {"threads", "notes"}},
    }


def _store_folder(key: dict[str, Any], fields: Sequence[str], samples: int) -> Path:
    named = store_name({**key, "fields": sorted(fields), "samples": samples})
    return cache_dir() / "outputs" / named


def embed(
    source_of: Callable[[int], ImageSource],
    fingerprint: str,
    run: RunSettings,
    progress: Progress,
    *,
    flip: bool,
) -> Inferred:
    """Run a recognition model over a data set.

    Parameters
    ----------
    source_of : callable
        Gives the images at the side length that the model takes.
    fingerprint, run, progress
        As for `fill`.
    flip : bool
        Whether mirrored images are run too.
    """
    config = load_model_config(run.model or SAMPLE_MODEL, run)
    if config.head != "embedding":
        raise InputError(
            f"The model {config.name!r} has the head {config.head!r}: it is a detector. Give a "
            "recognition model, or run 'evalkit widerface'."
        )
    with open_model(run, config) as model:
        check_input(model.session, model.config)
        source = source_of(face_side(model.config))
        stored = _stored_fields(run, model, fingerprint, len(source), flip=flip)
        normalise = Normaliser(model.config.input, model.session.inputs[0].dtype)
        embedder = Embedder(
            model.session, normalise, flip="flipped" in stored, output=model.config.output
        )
        options = EmbedOptions(
            model.session.inputs[0].batch or run.batch_size,
            run.decode_threads or available_cores(),
            run.max_failures,
        )
        return fill(
            model,
            source,
            fingerprint,
            run,
            progress,
            lambda todo: fill_store(
                todo.store,
                todo.starts,
                source,
                embedder,
                replace(options, failures=todo.failures),
                todo.advance,
            ),
            fields=stored,
        )


def _stored_fields(
    run: RunSettings, model: OpenModel, fingerprint: str, samples: int, *, flip: bool
) -> list[str]:
    """Return what to store: mirrored images too where they are wanted or there already."""
    both = ["embeddings", "flipped"]
    folder = run.outputs_dir or _store_folder(_key(model, fingerprint), both, samples)
    held = held_layout(folder)
    return both if flip or (held is not None and held[0] == frozenset(both)) else ["embeddings"]


def embeddings(
    inferred: Inferred, *, flip: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Return all embeddings, and those of the mirrored images if asked for; rows of NaN failed.

    Raises
    ------
    evalkit.core.errors.InputError
        The shards hold embeddings of different sizes.
    """
    store = inferred.store
    names = ["embeddings", "flipped"] if flip else ["embeddings"]
    arrays: list[NDArray[np.float32]] = []
    for span, shard in store.shards():
        if not arrays:
            size = shard.outputs["embeddings"].shape[1]
            arrays = [np.empty((store.samples, size), np.float32) for _ in names]
        for array, name in zip(arrays, names, strict=True):
            if shard.outputs[name].shape[1] != array.shape[1]:
                raise InputError(
                    f"{store.folder} holds embeddings of sizes {array.shape[1]} and "
                    f"{shard.outputs[name].shape[1]}. Compute them again: --overwrite always."
                )
            array[span] = shard.outputs[name]
    return arrays[0], arrays[1] if flip else None


def _summary(store: Store, model: ModelInfo, ran: RanInfo, reused: int, most: int) -> Inferred:
    decode = inference = 0.0
    failures: list[Failure] = []
    content = hashlib.sha256()
    for _, shard in store.shards(outputs=False):
        decode += shard.decode_seconds
        inference += shard.inference_seconds
        failures += shard.failures
        content.update(shard.digests.tobytes())
    check_failures(failures, most, store)
    if len(failures) == store.samples:
        raise InputError(f"No image gave a usable output: {failures[0].reason}")
    count = store.samples
    return Inferred(
        store=store,
        model=model,
        ran=ran,
        stages=(
            Stage(name="decode", seconds=decode, items=count, reused_items=reused),
            Stage(name="inference", seconds=inference, items=count, reused_items=reused),
        ),
        failures=tuple(failures),
        content_sha256=content.hexdigest(),
        throughput=count / inference if inference > 0 else None,
    )
