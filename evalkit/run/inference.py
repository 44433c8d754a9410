"""From a data set's images to stored outputs: what every evaluation shares."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import Ran, Speed
from evalkit.core.errors import CannotJudgeError, InputError
from evalkit.core.files import cache_dir
from evalkit.core.machine import available_cores
from evalkit.core.progress import Progress
from evalkit.core.results import Failure, ModelInfo, RanInfo, Stage
from evalkit.core.settings import ModelConfig, RunSettings, load_model_config
from evalkit.core.store import Store, read_layout, store_name
from evalkit.datasets.ijb import MARKER
from evalkit.run import detector
from evalkit.run.embedder import FLIPPED, PLAIN, Embedder
from evalkit.run.filling import Engine, check_failures, fill_store
from evalkit.run.models import OpenModel, check_input, face_side, open_model
from evalkit.run.pipeline import ImageSource, unchanged

Head = Literal["embedding", "detection"]

SAMPLE_MODEL = "sample-recognition"
PREPARATION_VERSION = 1
"""Raised when decoding, alignment or normalisation changes what a model is fed."""


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
    settings : mapping of str to object
        What a detector was opened with.
    """

    store: Store
    model: ModelInfo
    ran: RanInfo
    stages: tuple[Stage, ...]
    failures: tuple[Failure, ...]
    content_sha256: str
    throughput: float | None
    settings: Mapping[str, Any] = field(default_factory=dict)


def fill(
    model: OpenModel,
    source: ImageSource,
    fingerprint: str,
    run: RunSettings,
    progress: Progress,
    engine: Engine[Any, Any],
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
    engine : Engine
        Runs the model.

    Raises
    ------
    evalkit.core.errors.CannotJudgeError
        With ``--overwrite never``: a shard is missing, or its images have changed.
    """
    ran = model.session.ran
    store = _store(model, fingerprint, run, len(source), engine)
    always = run.overwrite == "always"
    valid = {} if always else store.valid(partial(unchanged, source))
    starts = [start for start in store.starts if start not in valid]
    if run.overwrite == "never" and starts:
        raise CannotJudgeError(
            f"{store.folder} holds {len(valid)} of {len(store.starts)} shards of these images, and "
            "--overwrite never computes none. Run it with only-missing."
        )
    todo = sum(len(range(len(source))[store.span(start)]) for start in starts)
    done = len(source) - todo
    if done:
        progress.say(f"resuming: {done:,} of {len(source):,} are in {store.folder}")
    if starts:
        with (
            store.writing(),
            progress.stage("decode + inference", len(source), "images", done=done) as advance,
        ):
            store.write_names(source.name(index) for index in range(len(source)))
            fill_store(
                store,
                starts,
                source,
                engine,
                decode_threads=run.decode_threads or available_cores(),
                max_failures=run.max_failures,
                failures=[failure for failures in valid.values() for failure in failures],
                advance=advance,
            )
    return _summary(store, model, ran, run, done)


def _store(
    model: OpenModel, fingerprint: str, run: RunSettings, samples: int, engine: Engine[Any, Any]
) -> Store:
    """Open the store of a run; a store that is there keeps its shard size."""
    key = _key(model, fingerprint)
    folder = run.outputs_dir or _store_folder(key, engine.fields, samples)
    layout = read_layout(folder)
    size = layout.size if layout else run.shard_size or engine.shard_size
    return Store(folder, key, samples, engine.fields, size)


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


def sample_model(head: Head) -> str:
    """Return the name of the embedded network of a kind."""
    return SAMPLE_MODEL if head == "embedding" else detector.SAMPLE_MODEL


def require_model(run: RunSettings, root: Path, head: Head) -> None:
    """Refuse to judge real data by the embedded network because nobody named a model.

    Parameters
    ----------
    run : RunSettings
    root : Path
        Where a sample of evalkit has its marker.
    head : {"embedding", "detection"}

    Raises
    ------
    evalkit.core.errors.InputError
        No model is named, and the data are no sample of evalkit.
    """
    if run.model is None and not (root / MARKER).is_file():
        raise InputError(
            f"{root} is no sample of evalkit: say with --model which model to evaluate "
            f"(--model {sample_model(head)} runs the embedded network)."
        )


def infer(
    source_of: Callable[[int], ImageSource],
    fingerprint: str,
    run: RunSettings,
    progress: Progress,
    *,
    head: Head,
    views: Sequence[str] = ("plain",),
) -> Inferred:
    """Run a model over a data set and fill its outputs store.

    Parameters
    ----------
    source_of : callable
        Gives the images, faces at the side length that the model takes.
    fingerprint, progress
        As for `fill`.
    run : RunSettings
        The embedded network runs where it names no model.
    head : {"embedding", "detection"}
    views : sequence of str
        ``flip`` among them runs mirrored images too.

    Raises
    ------
    evalkit.core.errors.EvalkitError
        The model cannot run, or too many images fail.
    """
    if head == "embedding":
        return _embed(source_of, fingerprint, run, progress, flip="flip" in views)
    options = _named(run, "score_threshold", "nms_threshold")
    with detector.open_detector(run, detector_config(run), options) as opened:
        inferred = fill(opened.model, source_of(0), fingerprint, run, progress, opened.detector)
    return replace(inferred, settings=opened.settings)


def detector_config(run: RunSettings) -> ModelConfig:
    """Return the configuration of a run's detector; another head takes no settings of the YAML's.

    Raises
    ------
    evalkit.core.errors.InputError
        There is no such model, or its YAML is wrong.
    """
    config = load_model_config(run.model or detector.SAMPLE_MODEL, run)
    changes = _named(run, "head", "sizing")
    if changes.get("head", config.head) != config.head:
        changes["head_settings"] = {}
    return config.model_copy(update=changes)


def _named(run: RunSettings, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(run, name, None)) is not None}


def _embed(
    source_of: Callable[[int], ImageSource],
    fingerprint: str,
    run: RunSettings,
    progress: Progress,
    *,
    flip: bool,
) -> Inferred:
    config = load_model_config(run.model or SAMPLE_MODEL, run)
    if config.head != "embedding":
        raise InputError(
            f"The model {config.name!r} has the head {config.head!r}: it is a detector. Give a "
            "recognition model, or run a command that evaluates detectors."
        )
    with open_model(run, config) as model:
        check_input(model.session, model.config)
        source = source_of(face_side(model.config))
        embedder = Embedder(
            model.session,
            model.config.input,
            flip=flip or _stores_flips(run, model, fingerprint, len(source)),
            output=model.config.output,
            batch_size=run.batch_size,
        )
        return fill(model, source, fingerprint, run, progress, embedder)


def _stores_flips(run: RunSettings, model: OpenModel, fingerprint: str, samples: int) -> bool:
    """Whether an earlier run has stored mirrored images too: its store serves this run as well."""
    both = (PLAIN, FLIPPED)
    folder = run.outputs_dir or _store_folder(_key(model, fingerprint), both, samples)
    layout = read_layout(folder)
    return layout is not None and layout.fields == frozenset(both)


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
    names = [PLAIN, FLIPPED] if flip else [PLAIN]
    arrays: list[NDArray[np.float32]] = []
    for span, shard in store.shards():
        if not arrays:
            size = shard.outputs[PLAIN].shape[1]
            arrays = [np.empty((store.samples, size), np.float32) for _ in names]
        for array, name in zip(arrays, names, strict=True):
            if shard.outputs[name].shape[1] != array.shape[1]:
                raise InputError(
                    f"{store.folder} holds embeddings of sizes {array.shape[1]} and "
                    f"{shard.outputs[name].shape[1]}. Compute them again: --overwrite always."
                )
            array[span] = shard.outputs[name]
    return arrays[0], arrays[1] if flip else None


def _summary(store: Store, model: OpenModel, ran: Ran, run: RunSettings, reused: int) -> Inferred:
    decode = inference = 0.0
    failures: list[Failure] = []
    content = hashlib.sha256()
    for _, shard in store.shards(outputs=False):
        decode += shard.decode_seconds
        inference += shard.inference_seconds
        failures += shard.failures
        content.update(shard.digests.tobytes())
    check_failures(failures, run.max_failures, store)
    if len(failures) == store.samples:
        raise InputError(f"No image gave a usable output: {failures[0].reason}")
    count = store.samples
    speed = model.session.speed or Speed(
        batch_size=model.session.inputs[0].batch or run.batch_size,
        images_per_second=count / inference if inference > 0 else None,
    )
    return Inferred(
        store=store,
        model=model.info,
        ran=RanInfo.model_validate({**asdict(ran), "batch_size": speed.batch_size}),
        stages=(
            Stage(name="decode", seconds=decode, items=count, reused_items=reused),
            Stage(name="inference", seconds=inference, items=count, reused_items=reused),
        ),
        failures=tuple(failures),
        content_sha256=content.hexdigest(),
        throughput=speed.images_per_second,
    )
