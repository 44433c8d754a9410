"""IJB-B and IJB-C as tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from evalkit.core.errors import InputError
from evalkit.core.progress import Progress
from evalkit.core.results import Interval, Result
from evalkit.datasets.ijb import IjbRelease
from evalkit.protocols.templates import verification_points
from evalkit.run.clock import scorable
from evalkit.run.filling import check_failures
from evalkit.run.inference import Inferred
from evalkit.stats.evidence import Array, Evidence
from evalkit.tasks.base import Evaluation, Ready, Samples, Task, Work
from evalkit.tasks.figures import rate_name
from evalkit.tasks.ijb import evidence, pictures, tables
from evalkit.tasks.ijb.figures import identification_metrics, tar_metrics
from evalkit.tasks.ijb.intervals import intervals_of_points
from evalkit.tasks.ijb.ready import flip_of, read_ready
from evalkit.tasks.ijb.samples import load_samples
from evalkit.tasks.ijb.scoring import identify, score
from evalkit.tasks.ijb.settings import IjbSettings
from evalkit.tasks.panels import Gallery, Runs
from evalkit.tasks.tables import Summary


class Ijb(Task[IjbSettings]):
    """Verification and identification of templates, by the protocol of one release."""

    protocol: ClassVar[Literal["IJBB", "IJBC"]]
    head = "embedding"
    Settings = IjbSettings
    reading = "figures in %, differences in points; intervals two-sided, over subjects"

    def open(self, settings: IjbSettings, progress: Progress) -> Iterator[Samples]:
        """See `Task.open`."""
        yield load_samples(self.root(settings, progress), self.protocol, settings)

    def check(self, samples: Samples, settings: IjbSettings) -> None:
        """See `Task.check`: both kinds of pairs are needed, and for 1:N its files."""
        release: IjbRelease = samples.data
        if release.genuine.all() or not release.genuine.any():
            kind = "impostor" if release.genuine.any() else "genuine"
            left = " among those that --limit left" if settings.limit else ""
            raise InputError(
                f"These data cannot be scored: the pair file in {release.root / 'meta'} has no "
                f"{kind} pairs{left}."
            )
        if settings.one_to_n and (release.galleries is None or release.probes is None):
            raise InputError(
                f"1:N needs the gallery and probe files in {release.root / 'meta'}; they are not "
                "there. Leave out --one-to-n."
            )

    def ready(self, settings: IjbSettings, samples: Samples, work: Work) -> Ready | None:
        """See `Task.ready`: ``--features``, ``--templates`` or ``--scores``."""
        return read_ready(settings, samples.data)

    def evaluate(
        self, outputs: Inferred | Ready, samples: Samples, settings: IjbSettings, work: Work
    ) -> Evaluation:
        """See `Task.evaluate`.

        The arrays are ``scores`` (float32, NaN where a template failed to enrol) and ``pairs``, in
        the order of the pair file, and ``genuine``; ``template_id`` and ``subject_id`` say who is
        who.
        """
        release: IjbRelease = samples.data
        scored = score(outputs, release, settings, work)
        check_failures(scored.failures, settings.max_failures)
        with work.clock.stage("scoring"), scorable():
            points = verification_points(
                scored.scores, release.genuine, settings.far, settings.rule
            )
        subjects = release.subjects()
        intervals: Sequence[Interval | None] = [None] * len(points)
        if settings.intervals and settings.rule == "at_most":
            with work.clock.stage("intervals"):
                intervals = intervals_of_points(release, subjects, scored.scores, points)
        metrics = tar_metrics(points, intervals)
        if settings.one_to_n:
            with work.clock.stage("1:N"):
                searched = identify(release, scored.templates, settings, work.progress)
            metrics += identification_metrics(searched)
        applied = settings.model_dump(mode="json", include={"rule", "far", "limit", "one_to_n"})
        # How templates that were made elsewhere were fused is not known.
        fused = settings.templates is None and settings.scores is None
        applied |= {
            "keep_norm": settings.keep_norm if fused else None,
            "detector_score": settings.detector_score if fused else None,
            "flip": flip_of(settings) if fused else None,
            "intervals": any(intervals),
        }
        if settings.one_to_n:
            applied["identification_rule"] = settings.identification_rule
        return Evaluation(
            metrics=tuple(metrics),
            arrays={
                "scores": scored.scores,
                "pairs": release.pairs,
                "genuine": release.genuine,
                "template_id": subjects.template_id,
                "subject_id": subjects.subject_id,
            },
            applied=applied,
            failures=scored.failures,
            warnings=scored.warnings,
        )

    def summary(self, result: Result) -> Summary:
        """See `Task.summary`."""
        return tables.summary(result)

    def read(self, arrays: Mapping[str, Array], result: Result) -> Mapping[str, Evidence]:
        """See `Task.read`."""
        return evidence.read(arrays, result)

    def pictures(self, runs: Runs) -> tuple[Gallery, ...]:
        """See `Task.pictures`."""
        return pictures.pictures(runs)

    def primaries(self, settings: IjbSettings) -> tuple[str, ...]:
        """See `Task.primaries`."""
        if settings.rule != "at_most":
            raise ValueError(f"settings: the test is of the rule at_most, not of {settings.rule}")
        return tuple(f"tar@far={rate_name(far)}" for far in settings.far)

    def views(self, settings: IjbSettings) -> tuple[str, ...]:
        """See `Task.views`."""
        return ("plain",) if settings.flip == "none" else ("plain", "flip")

    def finds(self, path: Path) -> bool:
        """See `Task.finds`: a release folder, or the folder that holds it."""
        marker = Path("meta", f"{self.protocol.lower()}_face_tid_mid.txt")
        return any((folder / marker).is_file() for folder in (path, path / self.protocol))


class Ijbb(Ijb):
    """IJB-B."""

    name = "ijbb"
    title = "IJB-B"
    sample = "ijbb"
    protocol = "IJBB"

    def finds(self, path: Path) -> bool:
        """See `Task.finds`; a folder that has the files of both is taken for IJB-C."""
        return super().finds(path) and not Ijbc().finds(path)


class Ijbc(Ijb):
    """IJB-C."""

    name = "ijbc"
    title = "IJB-C"
    sample = "ijbc"
    protocol = "IJBC"
