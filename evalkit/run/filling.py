"""The loop that fills an outputs store, for models of every kind.

Images are read and prepared in threads ahead of the session. While one task infers, the outputs of
the task before are decoded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from evalkit.core.errors import InputError
from evalkit.core.progress import Advance
from evalkit.core.results import Failure
from evalkit.core.store import Shard, Store
from evalkit.run.pipeline import (
    ImageSource,
    Notes,
    Pixels,
    batches_ahead,
    one_opencv_thread,
    read_images,
)

Inputs = TypeVar("Inputs")
Raw = TypeVar("Raw")

_DECODERS = 1
NOT_FINITE = "the model's output is NaN or infinite ({cause})."


@dataclass(frozen=True, slots=True, eq=False)
class TaskOutputs:
    """The outputs of a task's images, as a store keeps them.

    Attributes
    ----------
    outputs : dict of str to ndarray
        By field; see `evalkit.core.store.Shard`.
    unusable : dict of int to str
        By an image's place in the task: why it has no usable output.
    """

    outputs: dict[str, NDArray[Any]]
    unusable: dict[int, str]


class Engine(Protocol[Inputs, Raw]):
    """One kind of model: how its inputs are made, run and read.

    `prepare` is called from many threads, `infer` from one, `decode` from another one.
    """

    @property
    def fields(self) -> tuple[str, ...]:
        """The arrays that a shard holds."""

    @property
    def task_size(self) -> int:
        """How many images go through the three steps together."""

    @property
    def shard_size(self) -> int:
        """How many images a shard holds, where nobody says otherwise."""

    def prepare(self, images: Mapping[int, Pixels], count: int) -> Inputs:
        """Make the session's inputs of a task of `count` images.

        `images` holds the RGB images by their place in the task. It lacks those that could not be
        read.
        """

    def infer(self, inputs: Inputs) -> Raw:
        """Run the session."""

    def decode(self, inputs: Inputs, raw: Raw, count: int) -> TaskOutputs:
        """Read the outputs of a task of `count` images. Nobody uses `inputs` afterwards."""


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared(Generic[Inputs]):
    inputs: Inputs
    notes: Notes
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class _Inferred(Generic[Inputs, Raw]):
    task: range
    prepared: _Prepared[Inputs]
    raw: Raw
    seconds: float


def fill_store(
    store: Store,
    starts: Sequence[int],
    source: ImageSource,
    engine: Engine[Any, Any],
    *,
    decode_threads: int,
    max_failures: int,
    failures: Sequence[Failure] = (),
    advance: Advance,
) -> None:
    """Compute and write the shards that begin at `starts`.

    Parameters
    ----------
    store : Store
        Opened for writing.
    starts : sequence of int
    source : ImageSource
    engine : Engine
    decode_threads : int
        Threads that read and prepare images.
    max_failures : int
        More failures than this stop the run. What was done stays in the store.
    failures : sequence of Failure
        Those of the shards that the store has already.
    advance : callable
        Is told how many images are done.

    Raises
    ------
    evalkit.core.errors.InputError
        More than `max_failures` images failed, or the model's outputs do not fit its head.
    """
    failed = list(failures)
    parts: list[Shard] = []
    first = 0
    tasks = shard_tasks(store, starts, engine.task_size)
    with (
        one_opencv_thread(),
        closing(batches_ahead(tasks, partial(_prepare, source, engine), decode_threads)) as ready,
        closing(
            batches_ahead(_infer(engine, ready), partial(_decode, source, engine), _DECODERS)
        ) as decoded,
    ):
        for inferred, part in decoded:
            task = inferred.task
            if not parts:
                first = task.start
            parts.append(part)
            advance(len(task))
            if task.stop == store.span(first).stop:
                shard = join_shards(parts)
                store.write(first, shard)
                failed += shard.failures
                parts = []
                check_failures(failed, max_failures, store)


def _prepare(source: ImageSource, engine: Engine[Inputs, Any], task: range) -> _Prepared[Inputs]:
    start = time.perf_counter()
    images, notes = read_images(source, task)
    inputs = engine.prepare(images, len(task))
    return _Prepared(inputs, notes, time.perf_counter() - start)


def _infer(
    engine: Engine[Inputs, Raw], tasks: Iterator[tuple[range, _Prepared[Inputs]]]
) -> Iterator[_Inferred[Inputs, Raw]]:
    for task, prepared in tasks:
        start = time.perf_counter()
        raw = engine.infer(prepared.inputs)
        yield _Inferred(task, prepared, raw, time.perf_counter() - start)


def _decode(
    source: ImageSource, engine: Engine[Inputs, Raw], inferred: _Inferred[Inputs, Raw]
) -> Shard:
    task, notes = inferred.task, inferred.prepared.notes
    result = engine.decode(inferred.prepared.inputs, inferred.raw, len(task))
    unusable = {
        place: Failure(name=source.name(task[place]), reason=reason)
        for place, reason in result.unusable.items()
    }
    failures = unusable | notes.failures
    return Shard(
        outputs=result.outputs,
        digests=notes.digests,
        stamps=notes.stamps,
        failures=tuple(failures[place] for place in sorted(failures)),
        decode_seconds=inferred.prepared.seconds,
        inference_seconds=inferred.seconds,
    )


def shard_tasks(store: Store, starts: Sequence[int], size: int) -> list[range]:
    """Cut the shards that begin at `starts` into tasks of `size` samples; none crosses a shard."""
    return [
        range(first, min(first + size, store.span(start).stop))
        for start in starts
        for first in range(start, store.span(start).stop, size)
    ]


def join_shards(parts: Sequence[Shard]) -> Shard:
    """Put consecutive parts of a shard together."""
    return Shard(
        outputs={
            name: np.concatenate([part.outputs[name] for part in parts])
            for name in parts[0].outputs
        },
        digests=np.concatenate([part.digests for part in parts]),
        stamps=np.concatenate([part.stamps for part in parts]),
        failures=tuple(failure for part in parts for failure in part.failures),
        decode_seconds=sum(part.decode_seconds for part in parts),
        inference_seconds=sum(part.inference_seconds for part in parts),
    )


def check_failures(failures: Sequence[Failure], most: int, store: Store | None = None) -> None:
    """Stop a run in which too much fails.

    Raises
    ------
    evalkit.core.errors.InputError
        There are more than `most`; the first three are named.
    """
    if len(failures) > most:
        first = "; ".join(f"{failure.name}: {failure.reason}" for failure in failures[:3])
        kept = f"What was done is kept in {store.folder}. " if store is not None else ""
        count = "1 failure" if len(failures) == 1 else f"{len(failures)} failures"
        raise InputError(
            f"{count} to enrol, more than --max-failures {most}. The first: "
            f"{first} {kept}Mend the data or the model, or raise --max-failures."
        )
