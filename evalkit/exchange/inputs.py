"""What to dump: the images of a data set, and how a model is fed with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

import evalkit
from evalkit.backends.outputs.manifest import Manifest, read_dump
from evalkit.backends.outputs.manifest import Task as Kind
from evalkit.backends.outputs.runtime_info import OutputSpec
from evalkit.core.errors import InputError
from evalkit.core.files import sha256_json
from evalkit.core.option import options_of
from evalkit.core.progress import Progress
from evalkit.core.settings import DATA, ModelConfig, RunSettings, load_model_config
from evalkit.core.validation import COMMAND_LINE, validate
from evalkit.exchange.dump import Image, Views, plain, plain_and_flipped
from evalkit.exchange.settings import DumpSettings, data_settings
from evalkit.heads.sizing import pad_colour, parse_sizing, place
from evalkit.run.inference import require_model, sample_model
from evalkit.run.models import face_side, host_reference
from evalkit.run.pipeline import ImageSource, Normaliser
from evalkit.run.verify import read_inputs, run_one
from evalkit.tasks import TASKS
from evalkit.tasks.base import Samples, Task, first


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """Everything that `evalkit.exchange.dump.dump` takes."""

    manifest: Manifest
    source: ImageSource
    views: Views
    normalise: Normaliser
    model: ModelConfig


@contextmanager
def prepare_inputs(
    config: DumpSettings, progress: Progress, own: Mapping[str, Any] | None = None
) -> Iterator[Inputs]:
    """Find the images and the preparation of a dump; the images can be read inside the ``with``.

    Parameters
    ----------
    config : DumpSettings
    progress : Progress
    own : mapping of str to object, optional
        Settings of the task, see `evalkit.exchange.settings.data_settings`.

    Raises
    ------
    evalkit.core.errors.EvalkitError, evalkit.datasets.errors.DatasetError
        The data or the model cannot be opened, or do not fit each other.
    """
    task = TASKS.get(config.kind)()
    detection = task.head == "detection"
    model = load_model_config(config.model or sample_model(task.head), config)
    if detection == (model.head == "embedding"):
        needs = "a detector" if detection else "a recognition model"
        raise InputError(
            f"The model {model.name!r} has the head {model.head!r}; {config.kind} needs {needs}."
        )
    if config.sizing is not None:
        model = model.model_copy(update={"sizing": config.sizing})
    with first(task.open(_settings(config, task, own or {}), progress)) as samples:
        if samples.key:
            raise InputError(f"{config.data} holds several sets. Name one of them with --data.")
        for warning in samples.warnings:
            progress.say(f"warning: {warning}")
        yield _inputs(config, task, model, samples)


def _inputs(config: DumpSettings, task: Task[Any], model: ModelConfig, samples: Samples) -> Inputs:
    detection = task.head == "detection"
    require_model(config, samples.root, task.head)
    if samples.source is None:
        raise InputError(f"{samples.root} holds no images.")
    source = samples.source(0 if detection else face_side(model))
    normalise = Normaliser(model.input, config.dtype or _dtype(config))
    kind: Kind = "detection" if detection else "recognition"
    preparation = {
        **model.input.model_dump(mode="json"),
        "flip": not detection and config.flip,
        "sizing": model.sizing if detection else None,
    }
    manifest = Manifest(
        evalkit_version=evalkit.__version__,
        task=kind,
        protocol=config.kind,
        dataset=samples.dataset.name,
        fingerprint=sha256_json([samples.fingerprint, preparation, len(source)]),
        model=model.name,
        preprocessing=preparation,
        format=config.format,
        dtype=normalise.dtype,
        layout=model.input.layout,
        batch=_batch(config, kind),
        samples=len(source),
        opencv=cv2.__version__,
    )
    views = _scales(model) if detection else plain_and_flipped if config.flip else plain
    return Inputs(manifest, source, views, normalise, model)


def _settings(config: DumpSettings, task: Task[Any], own: Mapping[str, Any]) -> RunSettings:
    """Return the settings of the task that say which images these are."""
    fields = task.Settings.model_fields
    for name in own.keys() - fields.keys():
        option = options_of(data_settings()[name])[name].name_of(name)
        raise InputError(f"{config.kind} takes no {option}. Leave it out.")
    options = options_of(DumpSettings)
    names = [name for name in options if options[name].group == DATA and name in fields]
    values = {name: getattr(config, name) for name in names}
    return validate(task.Settings, {**values, **own}, COMMAND_LINE)


def _dtype(config: DumpSettings) -> str:
    """Pictures are what a device normalises itself; tensors are normalised."""
    return "uint8" if config.format == "image" else "float32"


def _batch(config: DumpSettings, kind: Kind) -> int:
    batch = config.batch or (256 if config.format == "npz" and kind == "recognition" else 1)
    if batch > 1 and (kind == "detection" or config.format == "image"):
        what = "a detector's inputs differ in size" if kind == "detection" else "a picture is one"
        raise InputError(f"--batch {batch}: {what}, so that a file holds one input. Leave it out.")
    return batch


def _scales(model: ModelConfig) -> Views:
    sizing = parse_sizing(model.sizing)
    colour = pad_colour(sizing.pad, model.input.mean, model.input.color)

    def views(image: Image) -> list[tuple[str, Image]]:
        geometries = sizing.views((image.shape[0], image.shape[1]))
        names = ["plain"] if len(geometries) == 1 else [f"s{n}" for n in range(len(geometries))]
        return [
            (name, place(image, geometry, colour))
            for name, geometry in zip(names, geometries, strict=True)
        ]

    return views


def model_outputs(model: ModelConfig, folder: Path, threads: int | None) -> tuple[OutputSpec, ...]:
    """Return names and shapes of a detector's outputs, where the model can run here.

    Two dumped inputs of unlike shape show which sizes vary. If several vary, the device must write
    files that contain their shape.
    """
    dump = read_dump(folder)
    reference = host_reference(model, threads)
    if dump.manifest.task != "detection" or reference is None:
        return ()
    by_shape = {entry.items[0].shape: entry for entry in dump.entries}
    chosen = [by_shape[shape] for shape in (min(by_shape), max(by_shape))] if by_shape else []
    runs = []
    with reference() as session:
        for entry in chosen:
            tensor = read_inputs(dump, entry)
            if tensor is not None:
                runs.append(run_one(session, tensor, dump.manifest))
    if not runs:
        return ()
    return tuple(
        OutputSpec(name=name, shape=_common([outputs[name].shape for outputs in runs]))
        for name in runs[0]
    )


def _common(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...] | None:
    """Return the shape of which all are, -1 for one size that varies."""
    if len({len(shape) for shape in shapes}) > 1:
        return None
    sizes = [axis[0] if len(set(axis)) == 1 else -1 for axis in zip(*shapes, strict=True)]
    return tuple(sizes) if sizes.count(-1) < 2 else None
