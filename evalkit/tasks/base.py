"""The contract of a task: everything that evalkit knows of one benchmark, in one place.

A task knows its settings, its samples, its figures and what they mean. The rest of the house works
for every task alike: it asks the task, and never for its name. A new task is one module, one line
in the registry (or an entry point of the group ``evalkit.tasks``) and one test file, which derives
from `evalkit.testing.TaskContract`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from evalkit.core.errors import InputError
from evalkit.core.option import options_of
from evalkit.datasets.sample import Kind, sample_path

if TYPE_CHECKING:  # the registry reads this module where nothing but a task's name is asked for
    import numpy as np
    from numpy.typing import NDArray

    from evalkit.core.progress import Progress
    from evalkit.core.results import DatasetInfo, Failure, Metric, Result
    from evalkit.core.settings import RunSettings
    from evalkit.run.clock import Clock
    from evalkit.run.inference import Inferred
    from evalkit.run.overlap import People
    from evalkit.run.pipeline import ImageSource
    from evalkit.stats.evidence import Array, Evidence
    from evalkit.tasks.panels import Gallery, Panel, Runs
    from evalkit.tasks.tables import Summary, Table

S = TypeVar("S", bound="RunSettings")

Head = Literal["embedding", "detection"]

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Suffixes of files that are counted as images."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """One data set, before any model.

    Attributes
    ----------
    dataset : DatasetInfo
        Name, hashes and counts; the content's hash is added after inference.
    fingerprint : str
        SHA-256 of which images there are, as outputs stores and dumps know them.
    root : Path
        Where the data set lies; a sample of evalkit is marked there.
    source : callable or None
        Gives the images, faces at the side length that it is called with; None where no image is
        at hand.
    key : str
        Tells it from the other data sets of a run in names of files; empty where it is the only
        one.
    partial : bool
        Whether it is a part of the data set.
    groups : ndarray of int64, shape (images,), or None
        Images of one number belong together: calibration and hold-out never split them.
    people : People or None
        Who each group is, where the data tell.
    genuine : ndarray of bool, or None
        Where the groups are pairs, images 2i and 2i + 1: whether a pair shows one person.
    content : callable or None
        Gives an image as it is encoded; None where the images are files.
    warnings : tuple of str
    data : object
        The task's own: release, pairs, ground truth.
    """

    dataset: DatasetInfo
    fingerprint: str
    root: Path
    source: Callable[[int], ImageSource] | None = None
    key: str = ""
    partial: bool = False
    groups: NDArray[np.int64] | None = None
    people: People | None = None
    genuine: NDArray[np.bool_] | None = None
    content: Callable[[int], bytes] | None = None
    warnings: tuple[str, ...] = ()
    data: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """Input that was computed elsewhere, in place of a model's outputs.

    Attributes
    ----------
    file : Path
        Stands for the model in the result.
    data : object
        The task's own: features, scores, predictions.
    partial : bool
        Whether it does not cover the data set.
    """

    file: Path
    data: Any
    partial: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What an evaluation works with: the clock of its stages, and who is told of progress."""

    clock: Clock
    progress: Progress


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What a task made of a model's outputs.

    Attributes
    ----------
    metrics : tuple of Metric
    arrays : mapping of str to ndarray
        What is saved beside the result; `Task.read` makes evidence of it.
    applied : mapping of str to object
        The rules as applied; they go into the result's settings.
    failures : tuple of Failure
        Samples without a usable output.
    warnings : tuple of str
    data : object
        The task's own, for the files that it writes.
    """

    metrics: tuple[Metric, ...]
    arrays: Mapping[str, Array]
    applied: Mapping[str, Any]
    failures: tuple[Failure, ...] = ()
    warnings: tuple[str, ...] = ()
    data: Any = None


class Task(ABC, Generic[S]):
    """One benchmark. Tasks hold no state: each method is given what it works on.

    Attributes
    ----------
    name : str
        Registered name, and the subcommand.
    title : str
        For people: ``IJB-C``.
    head : {"embedding", "detection"}
        Which kind of model it evaluates.
    Settings : type
        Fields with help texts; the command line, YAML, plan and API are generated from them.
    sample : str or None
        The sample of evalkit in this task's format.
    reading : str
        How the tables of a comparison are to be read, in one line.
    hidden_parts : frozenset of str
        Parts of the data that are too many for tables of comparisons: ``event``. A part is a name
        in `evalkit.core.results.Metric.part`.
    probe_images : int
        How many images tell how long a run takes.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    head: ClassVar[Head]
    Settings: ClassVar[type[RunSettings]]
    sample: ClassVar[Kind | None] = None
    reading: ClassVar[str] = ""
    hidden_parts: ClassVar[frozenset[str]] = frozenset()
    probe_images: ClassVar[int] = 128

    @abstractmethod
    def open(self, settings: S, progress: Progress) -> Iterator[Samples]:
        """Yield the data sets of a run, each loaded when it is needed.

        All are looked for before the first is loaded. What a task holds open around a ``yield``
        stays open until the images of that data set were read.
        """

    def check(self, samples: Samples, settings: S) -> None:
        """Refuse, before hours of inference, what the data or the settings show to be in vain.

        Raises
        ------
        evalkit.core.errors.EvalkitError, evalkit.datasets.errors.DatasetError
        """

    @abstractmethod
    def evaluate(
        self, outputs: Inferred | Ready, samples: Samples, settings: S, work: Work
    ) -> Evaluation:
        """Score a model's outputs, or what was computed elsewhere."""

    @abstractmethod
    def read(self, arrays: Mapping[str, Array], result: Result) -> Mapping[str, Evidence]:
        """Make evidence of what lies beside a result, by view, the main one first.

        Raises
        ------
        evalkit.core.errors.InputError
            An array is missing or damaged, or belongs to another result.
        """

    @abstractmethod
    def summary(self, result: Result) -> Summary:
        """Lay a result out: what was evaluated, by which rules, and its tables."""

    @abstractmethod
    def primaries(self, settings: S) -> tuple[str, ...]:
        """Return the metrics that a sign-off may test under these settings.

        Raises
        ------
        ValueError
            It may test none; the message says which setting stands against it.
        """

    def ready(self, settings: S, samples: Samples, work: Work) -> Ready | None:
        """Return what was computed elsewhere, where the settings name any."""
        return None

    def views(self, settings: S) -> tuple[str, ...]:
        """Return the inputs that are made of an image: ``plain``, or ``plain`` and ``flip``."""
        return ("plain",)

    def root(self, settings: S, progress: Progress) -> Path:
        """Return where the data lie: ``--data``, else ``$EVALKIT_DATA``, else evalkit's sample.

        Raises
        ------
        evalkit.core.errors.InputError
            None is named, and evalkit has no sample of this task.
        """
        named = settings.data or os.environ.get("EVALKIT_DATA")
        if named:
            return Path(named)
        if self.sample is None:
            raise InputError(f"{self.title} needs data. Name them with --data.")
        progress.say(
            f"no --data and no EVALKIT_DATA: running on the embedded sample, not on {self.title}"
        )
        return sample_path(self.sample)

    def finds(self, path: Path) -> bool:
        """Whether a path holds data of this task, to be told from those of others."""
        return False

    def beside(self, settings: S) -> tuple[Path, ...]:
        """Return the files and folders that the figures rest on, beside the data and the model.

        A sign-off runs a cell again after one of them has changed.
        """
        options = options_of(type(settings))
        values = (getattr(settings, name) for name, o in options.items() if o.scope == "figure")
        return tuple(value for value in values if isinstance(value, Path))

    def images(self, path: Path) -> int:
        """Count the images of a path, for estimates.

        Raises
        ------
        evalkit.core.errors.InputError
            One run cannot take it: it holds several data sets.
        """
        names = (name for _, _, files in os.walk(path, followlinks=True) for name in files)
        return sum(name.lower().endswith(IMAGES) for name in names)

    def listing(self, path: Path, progress: Progress) -> Iterator[Samples]:
        """Yield the images of a path to calibrate with, which need no annotations of faces."""
        return self.open(self.Settings(data=path), progress)  # type: ignore[arg-type]

    def several(self, results: Sequence[Result]) -> tuple[Table, ...]:
        """Lay the results of several data sets out side by side."""
        return ()

    def doubts(self, result: Result) -> tuple[str, ...]:
        """Return what makes the figures doubtful, each in a sentence: warnings of the result."""
        return ()

    def panels(self, runs: Runs) -> tuple[Panel, ...]:
        """Return curves, histograms and thresholds of runs on the same data, as plain data.

        What the evidence of comparisons and of matches shows needs no code of the task.
        """
        if self.head == "embedding":
            from evalkit.tasks.comparison_panels import comparison_panels  # noqa: PLC0415 - heavy

            return comparison_panels(runs)
        from evalkit.tasks.match_panels import match_panels  # noqa: PLC0415

        return match_panels(runs)

    def pictures(self, runs: Runs) -> tuple[Gallery, ...]:
        """Cut pictures of a few samples: of errors, and of what changed between runs.

        Images are checked to be those that were evaluated. Where they cannot be shown, a sentence
        says why.
        """
        return ()

    def write(
        self, result: Result, evaluation: Evaluation, samples: Samples, settings: S
    ) -> Iterator[str]:
        """Write the files that the settings ask for; say of each what it is."""
        return iter(())


@contextmanager
def first(sets: Iterator[Samples]) -> Iterator[Samples]:
    """Give the first data set; what the task holds open for it stays open inside the ``with``.

    Raises
    ------
    evalkit.core.errors.InputError
        There is none.
    """
    try:
        samples = next(sets, None)
        if samples is None:
            raise InputError("The data have no set of images. Name others with --data.")
        yield samples
    finally:
        if isinstance(sets, Generator):
            sets.close()
