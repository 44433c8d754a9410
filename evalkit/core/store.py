"""The outputs store: what a model gave for every sample, on disk, in shards.

Inference runs once; every protocol, rule and comparison runs again from here. A store belongs to
one key (model, precision, what ran, data, preprocessing). Shards are written atomically and
checked when read, so an interrupted run loses at most the shard it was in.
"""

from __future__ import annotations

import fcntl
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.core.errors import CannotJudgeError, InputError
from evalkit.core.files import atomic_write, sha256_json
from evalkit.core.results import Failure

SHARD = 512
_MANIFEST = "store.json"
_NAMES = "names.json"
_FORMAT = 1
_NOTES = {"digests", "stamps", "seconds", "failures"}
_DAMAGE = (OSError, ValueError, KeyError, TypeError)
"""What reading a damaged manifest raises."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Outputs of consecutive samples.

    Attributes
    ----------
    outputs : dict of str to ndarray
        By field. Embeddings: ``embeddings`` and perhaps ``flipped``, a row of NaN where a sample
        failed. Detections: ``counts`` (of a sample, -1 where it failed) and ``detections``.
    digests : ndarray of uint8, shape (n, 8)
        Hash of each sample's bytes.
    stamps : ndarray of int64, shape (n, 2)
        Size and time of change of each sample's file when it was read.
    failures : tuple of Failure
        Samples without a usable output.
    decode_seconds, inference_seconds : float
        Busy time of one decoding worker, and of the session.
    """

    outputs: dict[str, NDArray[Any]]
    digests: NDArray[np.uint8]
    stamps: NDArray[np.int64]
    failures: tuple[Failure, ...]
    decode_seconds: float
    inference_seconds: float


class Store:
    """The shards of one run in one folder.

    Parameters
    ----------
    folder : Path
        Made if missing.
    key : dict
        JSON values that name the run; a folder of another key is refused.
    samples : int
        How many samples the run has.
    fields : sequence of str
        Names of the arrays that every shard holds.
    size : int
        Samples a shard.

    Raises
    ------
    evalkit.core.errors.InputError
        The folder holds another run; the message names what differs.
    """

    def __init__(
        self,
        folder: Path,
        key: dict[str, Any],
        samples: int,
        fields: Sequence[str],
        size: int = SHARD,
    ) -> None:
        self.folder = folder
        self.samples = samples
        self.fields = frozenset(fields)
        self.size = size
        whole = {**key, "samples": samples, "fields": sorted(fields), "size": size}
        self._key = json.loads(json.dumps(whole))
        self._check_manifest()

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open the store that a folder holds, whatever its run was.

        Raises
        ------
        evalkit.core.errors.InputError
            The folder holds no store, or its manifest is damaged.
        """
        try:
            key = _read_key(folder)
            return cls(folder, key, int(key["samples"]), list(key["fields"]), int(key["size"]))
        except _DAMAGE as error:
            raise InputError(f"{folder} holds no outputs store ({error}).") from error

    @property
    def key(self) -> dict[str, Any]:
        """What names the run: data, model, preprocessing, what ran."""
        return dict(self._key)

    def write_names(self, names: Iterable[str]) -> None:
        """Write the samples' names, so that a comparison can name the worst."""
        with atomic_write(self.folder / _NAMES) as file:
            file.write(json.dumps(list(names)).encode())

    def names(self) -> list[str]:
        """Return the samples' names; their numbers where no names were written."""
        try:
            names = json.loads((self.folder / _NAMES).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            names = None
        if not isinstance(names, list) or len(names) != self.samples:
            return [f"sample {index}" for index in range(self.samples)]
        return [str(name) for name in names]

    @property
    def starts(self) -> range:
        """First sample of each shard."""
        return range(0, self.samples, self.size)

    def span(self, start: int) -> slice:
        """Return the samples of the shard that begins at `start`."""
        return slice(start, min(start + self.size, self.samples))

    def missing(self) -> list[int]:
        """Return the starts of the shards that are not there or cannot be read."""
        return [start for start in self.starts if self._read_or_none(start) is None]

    def valid(self, unchanged: Callable[[slice, Shard], bool]) -> dict[int, tuple[Failure, ...]]:
        """Return the shards that are there and still of the data, with their failures.

        Parameters
        ----------
        unchanged : callable
            Says of some samples whether their files are those that a shard was computed from.
        """
        failures = {}
        for start in self.starts:
            shard = self._read_or_none(start)
            if shard is not None and unchanged(self.span(start), shard):
                failures[start] = shard.failures
        return failures

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Lock the folder for one writer, and write its manifest.

        Raises
        ------
        evalkit.core.errors.InputError
            Another process writes to it, or it has become the store of another run.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(
                    f"Another run is writing to {self.folder}. Wait for it, or give "
                    "--outputs-dir another folder."
                ) from error
            self._check_manifest()
            for left_over in self.folder.glob(".*.partial"):
                left_over.unlink(missing_ok=True)
            with atomic_write(self.folder / _MANIFEST) as file:
                file.write(json.dumps({"format": _FORMAT, "key": self._key}, indent=2).encode())
            yield

    def write(self, start: int, shard: Shard) -> None:
        """Write a shard atomically."""
        failures = [(failure.name, failure.reason) for failure in shard.failures]
        arrays: dict[str, NDArray[Any]] = {
            **shard.outputs,
            "digests": shard.digests,
            "stamps": shard.stamps,
            "seconds": np.array([shard.decode_seconds, shard.inference_seconds]),
            "failures": np.array(failures or np.empty((0, 2)), dtype=np.str_),
        }
        with atomic_write(self._path(start)) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def read(self, start: int, *, outputs: bool = True) -> Shard:
        """Read a shard, with its outputs or without.

        Raises
        ------
        evalkit.core.errors.CannotJudgeError
            It is missing or damaged.
        """
        shard = self._read_or_none(start, outputs=outputs)
        if shard is None:
            raise CannotJudgeError(
                f"{self._path(start)} is missing or damaged. Run the same command again."
            )
        return shard

    def shards(self, *, outputs: bool = True) -> Iterator[tuple[slice, Shard]]:
        """Yield all shards in order, one in memory at a time, with the samples that they hold.

        Parameters
        ----------
        outputs : bool
            Whether to read the outputs too; without them only what is noted beside them.
        """
        for start in self.starts:
            yield self.span(start), self.read(start, outputs=outputs)

    def _path(self, start: int) -> Path:
        return self.folder / f"shard-{start:09d}.npz"

    def _read_or_none(self, start: int, *, outputs: bool = True) -> Shard | None:
        span = self.span(start)
        try:
            with np.load(self._path(start), allow_pickle=False) as data:
                names = set(data.files)
                chosen = names if outputs else names - self.fields
                shard = _shard({name: data[name] for name in chosen})
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        whole = len(shard.digests) == span.stop - span.start
        whole = whole and len(shard.stamps) == len(shard.digests)
        return shard if whole and names - _NOTES == self.fields else None

    def _check_manifest(self) -> None:
        path = self.folder / _MANIFEST
        if not path.exists():
            visible = (path for path in self.folder.glob("*") if not path.name.startswith("."))
            if any(visible):
                raise InputError(
                    f"{self.folder} is not empty and not an outputs store. "
                    "Give --outputs-dir a new folder."
                )
            return
        try:
            key = _read_key(self.folder)
        except _DAMAGE as error:
            raise InputError(
                f"{path} is damaged ({error}). Remove {self.folder} or give --outputs-dir another."
            ) from error
        if key != self._key:
            fields = sorted({*key, *self._key})
            differ = [name for name in fields if key.get(name) != self._key.get(name)]
            raise InputError(
                f"{self.folder} holds the outputs of another run: {', '.join(differ)} "
                f"{'differs' if len(differ) == 1 else 'differ'}. Give --outputs-dir another folder."
            )


@dataclass(frozen=True, slots=True)
class Layout:
    """What a store's shards hold, and how many samples each has."""

    fields: frozenset[str]
    size: int


def read_layout(folder: Path) -> Layout | None:
    """Return the layout of the store in a folder, None if it holds none."""
    try:
        key = _read_key(folder)
        return Layout(frozenset(key["fields"]), int(key["size"]))
    except _DAMAGE:
        return None


def _read_key(folder: Path) -> dict[str, Any]:
    key = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["key"]
    if not isinstance(key, dict):
        raise TypeError("its key is not a mapping")
    return key


def store_name(key: dict[str, Any]) -> str:
    """Return a short name of a key, for a folder: its hash's first 16 digits."""
    return sha256_json(key)[:16]


def _shard(arrays: dict[str, NDArray[Any]]) -> Shard:
    decode, inference = (float(value) for value in arrays.pop("seconds"))
    failures = arrays.pop("failures")
    return Shard(
        digests=arrays.pop("digests"),
        stamps=arrays.pop("stamps"),
        failures=tuple(Failure(name=str(name), reason=str(reason)) for name, reason in failures),
        decode_seconds=decode,
        inference_seconds=inference,
        outputs=arrays,
    )
