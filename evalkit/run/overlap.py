"""Whether a model is judged on what it was calibrated with: its record against the data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.core.results import DatasetInfo
from evalkit.core.sidecar import calibration_of
from evalkit.core.store import Store


@dataclass(frozen=True, slots=True)
class People:
    """Who is evaluated.

    Attributes
    ----------
    names : tuple of str
        Of each group of the images; see `evalkit.tasks.base.Samples`.
    data, sha256, path : str, str, Path
        Of the whole data set that gave the names: others may give the same names to other people.
    official : bool
        Whether it is a public benchmark, whose names mean the same everywhere.
    """

    names: tuple[str, ...]
    data: str
    sha256: str
    path: Path
    official: bool

    def among(self, calibration: Mapping[str, Any]) -> int | None:
        """Count those whom a calibration knows; None where its names may be of other people."""
        known = calibration["identities"]
        same = calibration["data_sha256"] == self.sha256
        same |= self.official and calibration["data"] == self.data
        if known is None or not (same or _same_place(calibration, self.path)):
            return None
        return len(set(self.names) & set(known))


def overlap(
    model: Path, store: Store, dataset: DatasetInfo, people: People | None = None
) -> tuple[str, ...]:
    """Warn where the record of a converted model says that it was calibrated on evaluated data.

    Images are compared by the digests that the outputs store holds anyway; none is read again.

    Parameters
    ----------
    model : Path
    store : Store
        The run's outputs.
    dataset : DatasetInfo
        What is evaluated.
    people : People, optional
        Who is, where the data tell.

    Returns
    -------
    tuple of str
        Empty where nothing was calibrated, or on others.

    Raises
    ------
    evalkit.core.errors.InputError
        The record is malformed.
    """
    calibration = calibration_of(model)
    if calibration is None:
        return ()
    parts = []
    shown = people.among(calibration) if people else None
    if people and shown:
        parts.append(f"{shown:,} of the {len(people.names):,} identities")
    digests = calibration.get("digests")
    if digests is not None:
        images = _shared(store, digests)
        if images:
            parts.append(f"{images:,} of the {store.samples:,} images")
    elif shown is None and _same_data(calibration, dataset):
        # Records without digests: the data set as a whole is all that can be compared.
        parts.append(f"{calibration['count']:,} images of the data set")
    if not parts:
        return ()
    return (
        f"The model was calibrated on {' and '.join(parts)} that are evaluated here: the figures "
        "flatter it. Convert it again with --calibration of other people, and these data as "
        "--evaluated.",
    )


def _shared(store: Store, digests: list[str]) -> int:
    calibrated = np.frombuffer(bytes.fromhex("".join(digests)), np.uint64)
    return sum(
        int(np.isin(np.ascontiguousarray(shard.digests).view(np.uint64), calibrated).sum())
        for _, shard in store.shards(outputs=False)
    )


def _same_data(calibration: Mapping[str, Any], dataset: DatasetInfo) -> bool:
    same = bool(calibration["data_sha256"] == dataset.sha256)
    return same or _same_place(calibration, Path(dataset.path))


def _same_place(calibration: Mapping[str, Any], path: Path) -> bool:
    return Path(calibration["path"]).resolve() == path.resolve()
