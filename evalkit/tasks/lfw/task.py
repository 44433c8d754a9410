"""The LFW family as a task: ``.bin`` files of pairs, ten-fold verification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from evalkit.core.errors import InputError
from evalkit.core.progress import Progress
from evalkit.core.results import DatasetInfo, Failure, Result
from evalkit.datasets.errors import DatasetError
from evalkit.datasets.lfw import LfwImages, LfwPairs, load_bin
from evalkit.protocols.folds import checked_labels
from evalkit.protocols.verification import evaluate as verify
from evalkit.run.clock import scorable
from evalkit.run.filling import check_failures
from evalkit.run.inference import Inferred, embeddings
from evalkit.stats.evidence import Array, Evidence
from evalkit.tasks.base import Evaluation, Ready, Samples, Task, Work
from evalkit.tasks.figures import rate_name
from evalkit.tasks.lfw import evidence, pictures, tables
from evalkit.tasks.lfw.figures import metrics_of
from evalkit.tasks.lfw.settings import LfwSettings
from evalkit.tasks.lfw.sheets import write_error_sheets
from evalkit.tasks.panels import Gallery, Runs
from evalkit.tasks.ready import read_array
from evalkit.tasks.tables import Summary, Table


class Lfw(Task[LfwSettings]):
    """LFW, CFP-FP, AgeDB-30 and every ``.bin`` of pairs: ten-fold verification."""

    name = "lfw"
    title = "LFW"
    head = "embedding"
    Settings = LfwSettings
    sample = "lfw"
    reading = (
        "figures in %, differences in points; intervals and tests two-sided, over pairs as if "
        "independent"
    )
    probe_images = 40

    def read(self, arrays: Mapping[str, Array], result: Result) -> Mapping[str, Evidence]:
        """See `Task.read`."""
        return evidence.read(arrays, result)

    def pictures(self, runs: Runs) -> tuple[Gallery, ...]:
        """See `Task.pictures`."""
        return pictures.pictures(runs)

    def open(self, settings: LfwSettings, progress: Progress) -> Iterator[Samples]:
        """See `Task.open`: the ``.bin`` that is named, or those of a folder."""
        data = self.root(settings, progress)
        paths = sorted(data.glob("*.bin")) if data.is_dir() else [data]
        if not paths:
            raise InputError(f"{data} holds no .bin file. Name the file, or the folder of several.")
        several = len(paths) > 1
        if several and settings.embeddings is not None:
            raise InputError(
                f"{data} holds {len(paths)} sets, but --embeddings are those of one set. Name its "
                ".bin with --data."
            )
        for path in paths:
            pairs = load_bin(path, check_images=settings.max_failures == 0)
            yield _samples(_limited(pairs, settings.limit), path.stem if several else "")

    def check(self, samples: Samples, settings: LfwSettings) -> None:
        """See `Task.check`: both kinds of pairs are needed."""
        with _laid_to(samples.data):
            checked_labels(samples.data.issame)

    def ready(self, settings: LfwSettings, samples: Samples, work: Work) -> Ready | None:
        """See `Task.ready`: ``--embeddings``, a row an image."""
        if settings.embeddings is None:
            return None
        rows = 2 * len(samples.data)
        plain = read_array(settings.embeddings, rows, what="images in the set")
        mirrored = None
        if settings.embeddings_flip is not None and settings.flip:
            mirrored = read_array(settings.embeddings_flip, rows, what="images in the set")
        return Ready(settings.embeddings, (plain, mirrored))

    def evaluate(
        self, outputs: Inferred | Ready, samples: Samples, settings: LfwSettings, work: Work
    ) -> Evaluation:
        """See `Task.evaluate`.

        The arrays are ``distances`` (float64, squared; infinite where a side failed) and
        ``issame``; and ``distances_no_flip`` where mirrored images were added.
        """
        pairs: LfwPairs = samples.data
        failures: tuple[Failure, ...] = ()
        if isinstance(outputs, Ready):
            plain, mirrored = outputs.data
        else:
            plain, mirrored = embeddings(outputs, flip=settings.flip)
            failures = outputs.failures
        flips = [mirrored, None] if mirrored is not None else [None]
        figures = partial(
            verify,
            plain,
            pairs.issame,
            rules=settings.rules,
            fars=settings.far,
            layout=settings.folds,
        )
        with work.clock.stage("scoring"), _laid_to(pairs):
            runs = [figures(flipped) for flipped in flips]
        main = runs[0]
        failures += _nameless(pairs, main.failures, failures)
        check_failures(failures, settings.max_failures)
        arrays = {"distances": main.distances.squared, "issame": np.array(pairs.issame)}
        if main.flip:
            arrays["distances_no_flip"] = runs[-1].distances.squared
        return Evaluation(
            metrics=metrics_of(runs),
            arrays=arrays,
            applied={
                **settings.model_dump(mode="json", include={"rules", "far", "limit"}),
                "flip": "sum" if main.flip else "none",
                "folds": main.layout,
            },
            failures=failures,
            warnings=main.warnings,
        )

    def summary(self, result: Result) -> Summary:
        """See `Task.summary`."""
        return tables.summary(result)

    def several(self, results: Sequence[Result]) -> tuple[Table, ...]:
        """See `Task.several`."""
        return tables.several(results)

    def write(
        self, result: Result, evaluation: Evaluation, samples: Samples, settings: LfwSettings
    ) -> Iterator[str]:
        """See `Task.write`: contact sheets of the worst errors."""
        if settings.errors is not None:
            sheets = write_error_sheets(settings.errors, samples.data, result, evaluation.arrays)
            yield from (f"errors: {sheet}" for sheet in sheets)

    def primaries(self, settings: LfwSettings) -> tuple[str, ...]:
        """See `Task.primaries`."""
        rates = [f"{rate}@far={rate_name(far)}" for rate in ("tar", "val") for far in settings.far]
        # facexzoo counts ties as wrong either way, which no decision at a threshold does.
        accuracies = [f"accuracy/{rule}" for rule in settings.rules if rule != "facexzoo"]
        return (*rates, "auc", *accuracies)

    def views(self, settings: LfwSettings) -> tuple[str, ...]:
        """See `Task.views`."""
        return ("plain", "flip") if settings.flip else ("plain",)

    def finds(self, path: Path) -> bool:
        """See `Task.finds`: a ``.bin``, or a folder that holds one."""
        return path.suffix == ".bin" if path.is_file() else len(list(path.glob("*.bin"))) == 1

    def images(self, path: Path) -> int:
        """See `Task.images`."""
        if path.is_dir():
            raise InputError(f"{path} is a folder; name one .bin in it.")
        return 2 * len(load_bin(path))


def _samples(pairs: LfwPairs, key: str) -> Samples:
    same = int(np.count_nonzero(pairs.issame))
    part = ":" in pairs.name
    return Samples(
        dataset=DatasetInfo(
            name=pairs.name,
            sha256=pairs.sha256,
            content_sha256=None,
            counts={"pairs": len(pairs), "genuine": same, "impostors": len(pairs) - same},
            path=str(pairs.path),
        ),
        fingerprint=f"{pairs.sha256}:{pairs.name}" if part else pairs.sha256,
        root=pairs.path.parent,
        source=lambda side: LfwImages(pairs, side),
        key=key,
        partial=part,
        groups=np.repeat(np.arange(len(pairs)), 2),
        genuine=pairs.issame,
        content=lambda index: pairs.images[index],
        warnings=tuple(pairs.warnings),
        data=pairs,
    )


def _limited(pairs: LfwPairs, limit: int | None) -> LfwPairs:
    """Take pairs from all over the set, so that both kinds and all folds are in."""
    count = len(pairs) if limit is None else max(limit // 2, 10)
    if count >= len(pairs):
        return pairs
    rows = np.linspace(0, len(pairs) - 1, count).astype(int)
    images = [pairs.images[2 * row + side] for row in rows for side in (0, 1)]
    return replace(
        pairs, name=f"{pairs.name}:{count}-pairs", images=images, issame=pairs.issame[rows]
    )


def _nameless(
    pairs: LfwPairs, rows: Sequence[int], known: Sequence[Failure]
) -> tuple[Failure, ...]:
    """Name images without a direction that the inference has not named."""
    names = {failure.name for failure in known}
    return tuple(
        Failure(name=pairs.image_name(row), reason="the embedding is zero or not finite.")
        for row in rows
        if pairs.image_name(row) not in names
    )


@contextmanager
def _laid_to(pairs: LfwPairs) -> Iterator[None]:
    """Do numerics on a set; what they refuse is laid to its file."""
    try:
        with scorable():
            yield
    except InputError as error:
        raise DatasetError(str(error).rstrip("."), path=pairs.path) from error
