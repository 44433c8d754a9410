"""Your own pairs as a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.core.errors import InputError
from evalkit.core.files import sha256_file, sha256_json
from evalkit.core.progress import Progress
from evalkit.core.results import DatasetInfo, Failure, Result
from evalkit.core.settings import RunSettings, load_model_config
from evalkit.datasets.pairs import inside
from evalkit.run.clock import scorable
from evalkit.run.face_alignment import alignment
from evalkit.run.filling import check_failures
from evalkit.run.inference import Inferred, embeddings
from evalkit.run.models import model_sha256
from evalkit.stats.evidence import Array, Evidence, damaged, required
from evalkit.tasks.base import Evaluation, Ready, Samples, Task, Work
from evalkit.tasks.figures import rate_name
from evalkit.tasks.pairs.figures import codes_of, evidence_of, metrics_of, row_of, similarity_of
from evalkit.tasks.pairs.images import PairImages
from evalkit.tasks.pairs.pictures import pictures
from evalkit.tasks.pairs.settings import PairsSettings
from evalkit.tasks.pairs.table import FIRST_ROW, PairTable, read_pairs, read_scores
from evalkit.tasks.panels import Gallery, Runs
from evalkit.tasks.ready import read_array
from evalkit.tasks.tables import Summary, Table


class Pairs(Task[PairsSettings]):
    """Your own pairs: FNMR at FMR, EER, AUC, and accuracy at the best threshold."""

    name = "pairs"
    title = "Pairs"
    head = "embedding"
    Settings = PairsSettings
    reading = (
        "figures in %, differences in points; intervals and tests two-sided, over subjects where "
        "the table names them, else over pairs as if independent"
    )

    def open(self, settings: PairsSettings, progress: Progress) -> Iterator[Samples]:
        """See `Task.open`: a table of images' pairs, or of scores."""
        if settings.scores is not None:
            yield _samples(read_scores(settings.scores))
            return
        path = self.root(settings, progress)
        whole = read_pairs(path)
        root = settings.images or path.parent
        _check_paths(whole, root)
        table = whole.part(settings.limit)
        record = _alignment_record(settings)
        with ExitStack() as stack:

            def source(side: int) -> PairImages:
                align = stack.enter_context(
                    alignment(settings, root, RunSettings(threads=settings.threads), side)
                )
                return PairImages(root, table.images, side, align)

            yield replace(
                _samples(table, root),
                fingerprint=sha256_json([table.sha256, len(table), record]),
                source=source,
                partial=table is not whole,
            )

    def check(self, samples: Samples, settings: PairsSettings) -> None:
        """See `Task.check`: both kinds of pairs are needed."""
        genuine = samples.data.genuine
        if genuine.all() or not genuine.any():
            kind = "impostor" if genuine.any() else "genuine"
            raise InputError(
                f"{samples.data.path} has no {kind} pairs. Error rates need both kinds: same = 1 "
                "and same = 0. Add the missing kind."
            )

    def ready(self, settings: PairsSettings, samples: Samples, work: Work) -> Ready | None:
        """See `Task.ready`."""
        if settings.scores is not None:
            return Ready(settings.scores, samples.data.scores)
        if settings.embeddings is None:
            return None
        rows = read_array(settings.embeddings, len(samples.data.images), what="images in the table")
        return Ready(settings.embeddings, similarity_of(rows, None, samples.data.sides))

    def evaluate(
        self, outputs: Inferred | Ready, samples: Samples, settings: PairsSettings, work: Work
    ) -> Evaluation:
        """See `Task.evaluate`."""
        table: PairTable = samples.data
        failures: tuple[Failure, ...] = ()
        if isinstance(outputs, Ready):
            similarity = outputs.data
            failures = _failed_pairs(similarity)
        else:
            plain, mirrored = embeddings(outputs, flip=settings.flip)
            similarity = similarity_of(plain, mirrored, table.sides)
            failures = outputs.failures or _failed_pairs(similarity)
        refused = int(np.count_nonzero(~np.isfinite(similarity)))
        check_failures(failures, settings.max_failures)
        evidence = evidence_of(
            similarity,
            table.genuine,
            codes_of(table.subjects),
            table.sides if table.images else None,
        )
        with work.clock.stage("scoring"), scorable():
            metrics = metrics_of(evidence, settings.fmr)
        warning = f"Pairs without a score, which are refused at every threshold: {refused:,}."
        return Evaluation(
            metrics=metrics,
            arrays=evidence.arrays(),
            applied={
                **settings.model_dump(mode="json", include={"fmr", "limit", "flip", "align"}),
                "alignment": _alignment_record(settings),
            },
            failures=failures,
            warnings=(warning,) if refused else (),
        )

    def read(self, arrays: Mapping[str, Array], result: Result) -> Mapping[str, Evidence]:
        """See `Task.read`."""
        similarity, genuine = required(arrays, "similarity", "genuine")
        codes, sides = arrays.get("subjects"), arrays.get("sides")
        try:
            return {"": evidence_of(similarity, genuine.astype(bool), codes, sides)}
        except ValueError as error:
            raise damaged(error) from error

    def summary(self, result: Result) -> Summary:
        """See `Task.summary`."""
        counts = ", ".join(f"{count:,} {name}" for name, count in result.dataset.counts.items())
        rows = tuple(row_of(metric) for metric in result.metrics)
        few = any(metric.too_few for metric in result.metrics)
        return Summary(
            dataset=f"{result.dataset.name}: {counts}",
            rules=f"flip {'sum' if result.settings['flip'] else 'none'}; "
            "a pair matches where its similarity is at least the threshold",
            partial="a quick look at some pairs",
            tables=(
                Table(
                    ("figure", "%", "95 %", "threshold", "false accepts", "false rejects", ""),
                    rows,
                    notes=("few: fewer than 30 false accepts expected at that FMR",) if few else (),
                ),
            ),
        )

    def primaries(self, settings: PairsSettings) -> tuple[str, ...]:
        """See `Task.primaries`."""
        return tuple(f"fnmr@fmr={rate_name(fmr)}" for fmr in settings.fmr)

    def views(self, settings: PairsSettings) -> tuple[str, ...]:
        """See `Task.views`."""
        return ("plain", "flip") if settings.flip else ("plain",)

    def finds(self, path: Path) -> bool:
        """See `Task.finds`."""
        return path.is_file() and path.suffix.lower() in {".csv", ".parquet"}

    def beside(self, settings: PairsSettings) -> tuple[Path, ...]:
        """See `Task.beside`: the images that the table names, and the detector's weights."""
        if settings.data is None:
            return ()
        root = settings.images or settings.data.parent
        images = (root / name for name in read_pairs(settings.data).images)
        files = tuple(path for path in super().beside(settings) if path != root)
        if settings.detector is not None:
            run = RunSettings()
            files += (load_model_config(settings.detector, run).file_for(run.backend),)
        return (*images, *files)

    def images(self, path: Path) -> int:
        """See `Task.images`."""
        return len(read_pairs(path).images)

    def pictures(self, runs: Runs) -> tuple[Gallery, ...]:
        """See `Task.pictures`."""
        return pictures(runs)

    def doubts(self, result: Result) -> tuple[str, ...]:
        """See `Task.doubts`."""
        (area,) = (metric.value for metric in result.metrics if metric.figure == "auc")
        if area is None or area > 0.5:
            return ()
        return (
            f"The area under the curve is {100 * area:.1f} %: genuine pairs do not score higher "
            "than impostors. Check the labels, and that a higher score means more alike.",
        )


def _samples(table: PairTable, root: Path | None = None) -> Samples:
    genuine = int(np.count_nonzero(table.genuine))
    counts = {"pairs": len(table), "genuine": genuine, "impostors": len(table) - genuine}
    if table.images:
        counts["images"] = len(table.images)
    if table.subjects is not None:
        counts["subjects"] = len(np.unique(table.subjects))
    return Samples(
        dataset=DatasetInfo(
            name=f"pairs:{table.path.stem}",
            sha256=table.sha256,
            content_sha256=None,
            annotations_sha256=table.sha256,
            counts=counts,
            path=str(root or table.path),
        ),
        fingerprint=table.sha256,
        root=table.path.parent,
        groups=table.groups(),
        data=table,
    )


def _check_paths(table: PairTable, root: Path) -> None:
    """Refuse a path that leads out of the folder; the message names the first row that has it."""
    images, first = np.unique(table.sides, return_index=True)
    for image, place in zip(images.tolist(), first.tolist(), strict=True):
        inside(root, table.images[image], table.path, place // 2 + FIRST_ROW)


def _failed_pairs(similarity: Array) -> tuple[Failure, ...]:
    """Name each pair that has no score."""
    return tuple(
        Failure(name=f"pair {row + 1}", reason="its score is not finite.")
        for row in np.flatnonzero(~np.isfinite(similarity)).tolist()
    )


def _alignment_record(settings: PairsSettings) -> dict[str, Any] | None:
    """Return what the faces depend on beside their photographs; None without alignment."""
    if settings.points is not None:
        return {"points": sha256_file(settings.points)}
    if settings.detector is None:
        return None
    config = load_model_config(settings.detector, RunSettings())
    return {
        "detector": config.model_dump(mode="json", exclude={"files"}),
        "sha256": model_sha256(config.file_for(RunSettings().backend)),
        "score_threshold": settings.score_threshold,
    }
