"""Input of IJB that was computed elsewhere: features, templates or scores."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from evalkit.core.errors import InputError
from evalkit.datasets.ijb import IjbRelease
from evalkit.datasets.tables import Field, read_table
from evalkit.protocols.fusion import FusionSwitches, Templates, fuse_templates
from evalkit.run.clock import scorable
from evalkit.tasks.base import Ready
from evalkit.tasks.ijb.settings import IjbSettings
from evalkit.tasks.ready import Floats, checked, read_array, read_arrays


class Features(NamedTuple):
    """Features of all faces, and of their mirror images where these are used."""

    plain: Floats
    flipped: Floats | None


def read_ready(settings: IjbSettings, release: IjbRelease) -> Ready | None:
    """Read what the settings name: features, templates or scores."""
    if settings.scores is not None:
        return Ready(settings.scores, _read_scores(settings.scores, len(release.pairs)))
    if settings.templates is not None:
        templates = _read_templates(settings.templates)
        _check_templates(settings.templates, templates, release)
        return Ready(settings.templates, templates)
    if settings.features is not None:
        return Ready(
            settings.features, _read_features(settings, settings.features, len(release.images))
        )
    return None


def _read_features(config: IjbSettings, file: Path, faces: int) -> Features:
    """Read ``--features`` and ``--features-flip``: one row a face, in the order of the images.

    Raises
    ------
    evalkit.core.errors.InputError
        A file does not fit, or flips are asked for and not given.
    """
    features = read_array(file, faces, what="faces in the meta files")
    if flip_of(config) == "none":
        return Features(features, None)
    if config.features_flip is None:
        raise InputError(
            f"--flip {config.flip} needs the mirrored images' features: give --features-flip, or "
            "--flip none if these features are final."
        )
    mirrored = read_array(config.features_flip, faces, what="faces in the meta files")
    if mirrored.shape != features.shape:
        raise InputError(
            f"{file} has shape {features.shape}, but {config.features_flip} "
            f"{mirrored.shape}. They must be of one model."
        )
    return Features(features, mirrored)


def flip_of(config: IjbSettings) -> Literal["none", "sum", "concat"]:
    """Return the flip switch; features without their mirrors are taken as they are."""
    as_they_are = config.features is not None and config.features_flip is None
    return "none" if as_they_are and "flip" not in config.model_fields_set else config.flip


def _read_templates(path: Path) -> Templates:
    """Read ``--templates``: an ``.npz`` with ``template_id`` and ``features``, a row a template.

    Features are made unit length; rows that are zero or not finite failed to enrol.

    Raises
    ------
    evalkit.core.errors.InputError
        An array is missing or does not fit, or a template occurs twice.
    """
    arrays = read_arrays(path, ("template_id", "features"))
    ids = arrays["template_id"]
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(f"template_id in {path} must be a vector of integers.")
    features = checked(arrays["features"], f"features in {path}", len(ids), 2, "template ids")
    if len(np.unique(ids)) != len(ids):
        raise InputError(f"A template id occurs twice in {path}. Give one row a template.")
    if not features.size:
        raise InputError(f"{path} holds no templates: features have shape {features.shape}.")
    switches = FusionSwitches(keep_norm=True, detector_score=False, flip="none")
    with scorable():
        return fuse_templates(features, ids, np.zeros_like(ids), switches=switches)


def _read_scores(path: Path, pairs: int) -> Floats:
    """Read ``--scores``: ``scores`` of an ``.npz``, a ``.npy``, or a text file of one a line.

    Raises
    ------
    evalkit.core.errors.InputError, evalkit.datasets.errors.DatasetError
        The file is malformed, or there is not one score for each pair.
    """
    what = "pairs in the pair file"
    if path.suffix == ".npz":
        scores = read_arrays(path, ("scores",))["scores"]
        return checked(scores, f"scores in {path}", pairs, 1, what)
    if path.suffix == ".npy":
        return np.array(read_array(path, pairs, 1, what))
    scores = read_table(path, [Field("scores", "float")]).columns["scores"]
    return checked(scores, str(path), pairs, 1, what)


def _check_templates(file: Path, templates: Templates, release: IjbRelease) -> None:
    """Refuse ready-made templates that lack one of a pair."""
    absent = np.setdiff1d(release.template_id, templates.ids)
    absent = absent[np.isin(absent, release.pairs)]
    if len(absent):
        more = f" and {len(absent) - 1:,} more" if len(absent) > 1 else ""
        raise InputError(
            f"{file} lacks template {absent[0]}{more} of the pair file in {release.root / 'meta'}. "
            "Give a row for each template; one of zeros stands for a failure to enrol."
        )
