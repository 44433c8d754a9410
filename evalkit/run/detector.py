"""Opening a detector: a model file, its head, sizing and options, ready to run over images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from evalkit.core.errors import InputError
from evalkit.core.settings import ModelConfig, RunSettings
from evalkit.heads import build_head
from evalkit.heads.detection import DetectionHead, DetectionOptions
from evalkit.heads.sizing import Fixed, MultiScale, Sizing, parse_sizing
from evalkit.run.detecting import Detector, vote_threshold
from evalkit.run.models import OpenModel, open_model

SAMPLE_MODEL = "sample-detection"


@dataclass(frozen=True, slots=True)
class OpenDetector:
    """A detector, and what it was opened from.

    Attributes
    ----------
    detector : Detector
    model : OpenModel
        Its `info` holds the settings among the preprocessing.
    settings : dict
        Head, options and sizing, as results record them.
    """

    detector: Detector
    model: OpenModel
    settings: dict[str, Any]


@contextmanager
def open_detector(
    run: RunSettings, config: ModelConfig, options: Mapping[str, Any]
) -> Iterator[OpenDetector]:
    """Open a detector on the run's backend.

    Parameters
    ----------
    run : RunSettings
    config : ModelConfig
    options : mapping of str to Any
        Fields of `DetectionOptions` that go before those of the model's configuration, which go
        before the head's own.

    Raises
    ------
    evalkit.core.errors.EvalkitError
        The model, the backend or the precision is not available here; or head, options or sizing
        do not fit the model.
    """
    if config.head == "embedding":
        raise InputError(
            f"The model {config.name!r} has the head 'embedding'. Say which detection head reads "
            "its outputs: 'head' in its YAML, or --head where the command takes it."
        )
    head = build_head(config.head, config.head_settings)
    chosen = _options(head, config, options)
    sizing = parse_sizing(config.sizing)
    settings = {**head.settings(), **chosen.settings(), "sizing": str(sizing)}
    if isinstance(sizing, MultiScale):
        settings |= {"vote_threshold": vote_threshold(chosen), "vote_keep_single": True}
    with open_model(run, config) as opened:
        info = opened.info.model_copy(
            update={"preprocessing": {**opened.info.preprocessing, **settings}}
        )
        model = OpenModel(opened.session, opened.config, info)
        _check_sizing(model, sizing)
        detector = Detector(model.session, head, config.input, sizing, chosen, run.batch_size)
        yield OpenDetector(detector, model, settings)


def _options(
    head: DetectionHead, model: ModelConfig, changes: Mapping[str, Any]
) -> DetectionOptions:
    known = {field.name for field in dataclasses.fields(DetectionOptions)}
    unknown = sorted(model.detection.keys() - known)
    if unknown:
        raise InputError(
            f"The model {model.name!r} has unknown 'detection' settings: {', '.join(unknown)}; "
            f"known: {', '.join(sorted(known))}."
        )
    return dataclasses.replace(head.options(), **{**model.detection, **changes})


def _check_sizing(model: OpenModel, sizing: Sizing) -> None:
    """Refuse a policy that gives other sizes than the one that a model is fixed to."""
    shape = model.session.inputs[0].shape
    height, width = shape[2:4] if model.config.input.layout == "nchw" else shape[1:3]
    if not (isinstance(height, int) and isinstance(width, int)):
        return
    if not (isinstance(sizing, Fixed) and (sizing.height, sizing.width) == (height, width)):
        raise InputError(
            f"The model {model.config.name!r} takes images of {width}x{height} only, but the "
            f"sizing is {sizing}. Write 'fixed={width}x{height} letterbox' as 'sizing' in its "
            "YAML, or --sizing where the command takes it; or export the model with dynamic "
            "height and width."
        )
