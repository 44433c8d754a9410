"""Convert an fp32 model to a lower precision: draw images, build, compare, write the record."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import evalkit
from evalkit.backends.base import Ran
from evalkit.bench import model_bytes
from evalkit.convert import CONVERTERS
from evalkit.convert.agreement import compare
from evalkit.convert.base import Build, Built, Converter, ConvertSettings
from evalkit.convert.calibration import Drawn, draw
from evalkit.convert.exclusion import Trial, matched, outcome, rank, search
from evalkit.convert.image_sets import ImageSet, load_images
from evalkit.convert.settings import ConversionSettings
from evalkit.convert.trials import Prepared, Reading, check_runtime, kind_of, opened, side_of
from evalkit.convert.weights import check_weights
from evalkit.convert.writing import check_name, check_out, put, work_folder, write_model_yaml
from evalkit.core import machine as environment
from evalkit.core.errors import InputError, UnavailableError, WrongPrecisionError
from evalkit.core.progress import Progress
from evalkit.core.settings import ModelConfig, load_model_config
from evalkit.core.sidecar import SCHEMA_VERSION
from evalkit.run.models import OpenModel
from evalkit.run.pipeline import Normaliser

GOAL = 0.999
"""The default goal of ``--auto-exclude``: a mean cosine."""

DOUBTFUL = 0.98
"""A model whose mean cosine is below this is written with a warning."""
_RANKING_IMAGES = 32
_ALL = 1 << 31


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A built model.

    Attributes
    ----------
    trial : Trial
        Its figures.
    how : Built
    ran : Ran
        What ran it.
    sha256 : str
    trials : tuple of Trial
        Of ``--auto-exclude``, in order.
    ranked : tuple of (str, float)
        Layers and their losses, the worst first, if they were ranked.
    """

    trial: Trial
    how: Built
    ran: Ran
    sha256: str
    trials: tuple[Trial, ...] = ()
    ranked: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Conversion:
    """The result of a conversion.

    Attributes
    ----------
    out : Path
    yaml : Path or None
        The model YAML that lists the model.
    source_size : int
        In bytes.
    source_speed : float
        Images per second of the fp32 source, on the same images and threads.
    model : Candidate
        The model as written.
    record : dict
        The sidecar.
    warnings : tuple of str
    failure : str or None
        Why the model was not written.
    """

    out: Path
    yaml: Path | None
    source_size: int
    source_speed: float
    model: Candidate
    record: dict[str, Any]
    warnings: tuple[str, ...]
    failure: str | None


def convert(config: ConversionSettings, progress: Progress, *, command: str = "") -> Conversion:
    """Build a lower precision, compare it with fp32, and write it with its record.

    Raises
    ------
    evalkit.core.errors.EvalkitError, evalkit.datasets.errors.DatasetError
        The input is wrong, or the toolchain is not available.
    """
    converter = CONVERTERS.get(config.backend)
    _check_target(converter, config)
    check_name(config.out, converter.suffix)
    model = load_model_config(config.model or "", config)
    for backend in sorted({converter.reference or config.backend, config.backend}):
        check_runtime(config, backend, model)
    source = model.file_for(converter.reference or config.backend, "fp32")
    check_out(config.out, converter.suffix, source, overwrite=config.replace)
    with _draw(config, model, progress) as (images, drawn), work_folder(config.out) as work:
        job = _prepare(config, converter, model, source, images, drawn, work, progress)
        built = job.run()
        failure = _failure(config, built)
        record = _record(job, built, command)
        if failure is None:
            put(job.out, config.out, record, overwrite=config.replace)
            if config.yaml is not None:
                files = {f"{config.backend}:{config.precision}": config.out.resolve()}
                write_model_yaml(config.yaml, model, files)
    return Conversion(
        out=config.out,
        yaml=config.yaml,
        source_size=model_bytes(source),
        source_speed=job.fp32.images_per_second,
        model=built,
        record=record,
        warnings=(*drawn.warnings, *built.how.notes, *built.ran.notes, *_doubts(built)),
        failure=failure,
    )


def _check_target(converter: type[Converter], config: ConversionSettings) -> None:
    if config.precision not in converter.targets:
        others = f"It builds {', '.join(converter.targets)}."
        raise UnavailableError(
            f"Backend {config.backend!r} has no toolchain for {config.precision}. "
            f"{converter.refusals.get(config.precision, others)}"
        )
    if config.method is not None and config.method not in converter.methods:
        raise InputError(
            f"--method {config.method}: the toolchain of {config.backend!r} has only "
            f"{', '.join(converter.methods)}. Choose one of them."
        )


@contextmanager
def _draw(
    config: ConversionSettings, model: ModelConfig, progress: Progress
) -> Iterator[tuple[ImageSet, Drawn]]:
    """Draw images; only int8 needs them for calibration."""
    kind, side, int8 = kind_of(model), side_of(model), config.precision == "int8"
    with ExitStack() as stack:
        images = stack.enter_context(load_images(config.calibration, kind, side, progress))
        evaluated = None
        if int8 and config.evaluated is not None:
            evaluated = stack.enter_context(load_images(config.evaluated, kind, side, progress))
        drawn = draw(
            images,
            samples=config.samples if int8 else 1,
            held_out=config.held_out,
            seed=config.seed,
            evaluated=evaluated,
            progress=progress,
        )
        yield images, drawn


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """One conversion: the state that every trial needs."""

    config: ConversionSettings
    converter: type[Converter]
    source: OpenModel
    file: Path
    prepared: Prepared
    settings: ConvertSettings
    fp32: Reading
    work: Path
    progress: Progress

    @property
    def out(self) -> Path:
        """The final model in the work folder."""
        return self.work / self.config.out.name

    def run(self) -> Candidate:
        """Exclude layers as configured, and build."""
        layers = self._layers()
        excluded = matched(self.config.exclude, layers)
        int8 = self.config.precision == "int8"
        batches = self.prepared.calibration(self.source) if int8 else None
        count = len(self.prepared.drawn.calibration)
        calibrating = f"calibrating with {count} images and " if int8 else ""
        self.progress.say(f"{calibrating}building {self.config.precision}")
        with self.converter.builder(self.file, self.settings, batches) as build:
            if not self.config.auto_exclude:
                return self._measure(build, excluded, self.out)
            start = self._try(build, excluded)
            ranked: list[tuple[str, float]] = []
            trials = [start]
            figure, goal = _aim(self.config)
            if figure(start) < goal:
                ranked = rank(
                    [layer for layer in layers if layer not in excluded],
                    lambda others: self._try(build, (*excluded, *others), _RANKING_IMAGES),
                    self.progress,
                )
                names = [layer for layer, _ in ranked]
                attempt = partial(self._try, build)
                trials = list(search(names, start, attempt, figure, goal, self.progress))
            final = self._measure(build, outcome(trials).excluded, self.out)
        return replace(final, trials=tuple(trials), ranked=tuple(ranked))

    def _layers(self) -> tuple[str, ...]:
        if not (self.config.exclude or self.config.auto_exclude):
            return ()
        layers = self.converter.layers(self.file, self.settings)
        if not layers:
            raise InputError(
                f"The toolchain of {self.config.backend!r} cannot exclude single layers of "
                f"{self.file.name}. Convert it without --exclude and --auto-exclude."
            )
        return layers

    def _try(self, build: Build, excluded: tuple[str, ...], most: int = _ALL) -> Trial:
        with tempfile.TemporaryDirectory(prefix="evalkit-") as folder:
            out = Path(folder) / self.config.out.name
            return self._measure(build, excluded, out, most).trial

    def _measure(
        self, build: Build, excluded: tuple[str, ...], out: Path, most: int = _ALL
    ) -> Candidate:
        """Build, run on the images of the comparison, and compare with fp32."""
        how = build(out, excluded)
        precision, backend = self.config.precision, self.config.backend
        progress = self.progress if out == self.out else Progress(quiet=True)
        with opened(self.config, backend, precision, self.prepared.config, out) as model:
            reading = self.prepared.read(model, progress, precision, most)
            ran, sha256 = model.session.ran, model.info.sha256 or ""
        accuracy = None
        if self.config.until_accuracy is not None and most == _ALL:
            accuracy = self.prepared.accuracy(reading.rows[0])
        agreement = compare([rows[:most] for rows in self.fp32.rows], reading.rows)
        trial = Trial(excluded, agreement, accuracy, model_bytes(out), reading.images_per_second)
        return Candidate(trial, how, ran, sha256)


def _prepare(
    config: ConversionSettings,
    converter: type[Converter],
    model: ModelConfig,
    source: Path,
    images: ImageSet,
    drawn: Drawn,
    work: Path,
    progress: Progress,
) -> _Job:
    """Run the source, and choose the settings of the toolchain."""
    backend = converter.reference or config.backend
    try:
        with opened(config, backend, "fp32", model, source) as reference:
            check_weights(source)
            prepared = Prepared.of(reference, images, drawn)
            fp32 = prepared.read(reference, progress, "fp32", _ALL)
            compare(fp32.rows, fp32.rows)  # NaN is an error before anything is built
            if config.precision == "int8":
                prepared.check_calibration(reference)
    except WrongPrecisionError as error:
        raise InputError(
            f"{source} was not built in fp32, and a conversion starts from an fp32 model. Give the "
            "original that it was made from."
        ) from error
    shape = Normaliser(model.input).shape(reference.session.inputs[0].batch or 1, prepared.size)
    settings = ConvertSettings(
        precision=config.precision,
        method=config.method or converter.methods[0],
        per_channel=config.per_channel,
        symmetric=config.symmetric,
        threads=config.threads or environment.available_cores(),
        seed=config.seed,
        python=config.python,
        architecture=model.architecture,
        shape=shape,
    )
    return _Job(config, converter, reference, source, prepared, settings, fp32, work, progress)


def _failure(config: ConversionSettings, built: Candidate) -> str | None:
    """Return why the model must not be written, or None."""
    cosine = built.trial.agreement.mean
    if not cosine >= config.least_cosine:
        return (
            f"the {config.precision} model is wrong: its mean cosine to fp32 is {cosine:.4f}, "
            f"below --least-cosine {config.least_cosine:g}. Nothing was written. Try "
            "--auto-exclude, another --method or more --samples; --least-cosine 0 writes it."
        )
    figure, goal = _aim(config)
    if built.trials and figure(outcome(built.trials)) < goal:
        return (
            "the goal of --auto-exclude was not reached, even with every layer excluded. Nothing "
            "was written. Lower the goal, or build fp16."
        )
    return None


def _doubts(built: Candidate) -> tuple[str, ...]:
    """Warn about a model whose cosine is low but not clearly wrong."""
    cosine = built.trial.agreement.mean
    if cosine >= DOUBTFUL:
        return ()
    return (
        f"A mean cosine of {cosine:.4f} to fp32 may cost accuracy. Sign the model off before it "
        "ships, or keep the worst layers in fp32 (--auto-exclude).",
    )


def _aim(config: ConversionSettings) -> tuple[Callable[[Trial], float], float]:
    """Return the figure that ``--auto-exclude`` improves, and its goal."""
    if config.until_accuracy is not None:
        return lambda trial: trial.accuracy or 0.0, config.until_accuracy
    return lambda trial: trial.agreement.mean, config.until_cosine or GOAL


def _record(job: _Job, built: Candidate, command: str) -> dict[str, Any]:
    """Return the sidecar."""
    config, trial = job.config, built.trial
    settings = asdict(replace(job.settings, exclude=trial.excluded))
    settings["python"] = None if config.python is None else str(config.python)
    int8 = config.precision == "int8"
    if not int8:  # their defaults would suggest a calibration
        settings |= dict.fromkeys(("method", "per_channel", "symmetric"))
    return {
        "schema_version": SCHEMA_VERSION,
        "evalkit_version": evalkit.__version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "backend": config.backend,
        "precision": config.precision,
        "source": {"file": str(job.file.absolute()), "sha256": job.source.info.sha256},
        "built": {"file": config.out.name, "sha256": built.sha256, "bytes": trial.size},
        "toolchain": dict(built.how.versions),
        "settings": settings,
        "details": dict(built.how.details),
        "preprocessing": job.source.info.preprocessing,
        "input_size": list(job.prepared.size),
        "calibration": job.prepared.drawn.record if int8 else None,
        "excluded": list(trial.excluded),
        "figures": {
            "cosine": asdict(trial.agreement),
            "accuracy": trial.accuracy,
            "held_out_chose_layers": bool(built.ranked),
            "images_per_second": trial.images_per_second,
            "source_images_per_second": job.fp32.images_per_second,
            "precision_ran": built.ran.precision_ran,
        },
        "environment": environment.describe(),
    }
