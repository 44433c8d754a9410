"""Reading what a device wrote: a folder of output files, or one matrix, against the manifest."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.outputs.manifest import Entry, Manifest, spread
from evalkit.backends.outputs.runtime_info import RuntimeInfo
from evalkit.core.errors import CannotJudgeError, InputError

Outputs = dict[str, NDArray[np.float32]]

SUFFIXES = (".bin", ".txt", ".npy", ".npz")
# What the devices' tools write beside the outputs.
_BESIDE = re.compile(r"(.*summ?ary\.json|.*\.log|runtime-info\.yaml|\..*)$")
_NAMED = 3
_SAMPLED = 5


@dataclass(frozen=True, slots=True)
class Naming:
    """How the output files of an input are named: its stem, perhaps a number, a suffix."""

    suffix: str
    numbers: tuple[int, ...] | None

    def names(self, stem: str) -> list[str]:
        """Return the names of an input's output files, in the outputs' order."""
        if self.numbers is None:
            return [f"{stem}{self.suffix}"]
        return [f"{stem}_{number}{self.suffix}" for number in self.numbers]


class OutputFolder:
    """The output files of a device, one or more an input file.

    Parameters
    ----------
    folder : Path
    entries : sequence of Entry
        The input files.
    info : RuntimeInfo
        Names, shapes and element type of the outputs.
    manifest : Manifest
        Of ``recognition``, an output has a row for each row of the input file, or for each item.

    Raises
    ------
    evalkit.core.errors.InputError
        A file belongs to no input, or the files are named in no known way.
    evalkit.core.errors.CannotJudgeError
        An output is missing.
    """

    def __init__(
        self, folder: Path, entries: Sequence[Entry], info: RuntimeInfo, manifest: Manifest
    ) -> None:
        self.folder = folder
        self.info = info
        self.manifest = manifest
        present = {path.name for path in folder.iterdir() if path.is_file()}
        present = {name for name in present if not _BESIDE.match(name)}
        self.naming = _naming(folder, present, entries)
        expected = {name for entry in entries for name in self.naming.names(entry.stem)}
        _refuse(folder, expected, present)
        self._widths = self._find_widths(entries) if manifest.task == "recognition" else {}

    def read(self, entry: Entry) -> Outputs:
        """Return the outputs of an input file; of recognition, a row for each of its items.

        Raises
        ------
        evalkit.core.errors.InputError
            A file is cut short, has another size than the others or cannot be read.
        """
        outputs: Outputs = {}
        for place, (path, name, value) in enumerate(self._values(entry)):
            if self.manifest.task == "recognition":
                shaped = self._rows(path, name, value, len(entry.items))
            else:
                specs = self.info.outputs
                shaped = _shaped(path, value, specs[place].shape if specs else None)
            outputs[name] = shaped.astype(np.float32, copy=False)
        return outputs

    def _values(self, entry: Entry) -> list[tuple[Path, str, NDArray[Any]]]:
        """Return the arrays of an input file's outputs as they lie there, each with its name."""
        paths = [self.folder / name for name in self.naming.names(entry.stem)]
        dtype = self.info.output_dtype
        arrays = [(path, *array) for path in paths for array in _read(path, dtype)]
        specs = self.info.outputs
        if specs and len(specs) != len(arrays):
            raise InputError(
                f"{paths[0]}: the device wrote {len(arrays)} outputs of this input, but the "
                f"runtime info names {len(specs)}. Correct 'outputs' there."
            )
        if specs:
            pairs = zip(arrays, specs, strict=True)
            return [(path, spec.name, value) for (path, _, value), spec in pairs]
        counts = Counter(name for _, name, _ in arrays)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise InputError(
                f"{paths[0]} and its other files hold several outputs {twice[0]!r}. Name them "
                "under 'outputs' in the runtime info."
            )
        return arrays

    def _find_widths(self, entries: Sequence[Entry]) -> dict[str, int]:
        """Return the numbers a row of each output: those of most of a few files, full ones first.

        One file alone may be the one that is cut short.
        """
        batch = self.manifest.batch
        full = [entry for entry in entries if len(entry.items) == batch]
        seen: dict[str, Counter[int]] = defaultdict(Counter)
        for entry in spread(full or entries, _SAMPLED):
            for path, name, value in self._values(entry):
                rows = len(entry.items)
                # The shape counts only if it has the input's rows: numbers may stand in a column.
                named = value.ndim > 1 and value.shape[0] == rows
                count = rows if named or value.size % batch else batch
                if not value.size or value.size % count:
                    raise InputError(
                        f"{path} holds {value.size} numbers, which are not {count} rows of one "
                        "width. Copy it again from the device."
                    )
                seen[name][value.size // count] += 1
        return {
            name: max(widths, key=lambda width: (widths[width], width))
            for name, widths in seen.items()
        }

    def _rows(self, path: Path, name: str, value: NDArray[Any], rows: int) -> NDArray[Any]:
        """Cut a recognition output into rows; those that fill up a batch are left out."""
        width = self._widths.get(name)
        if width is None:
            raise InputError(
                f"{path} holds an output {name!r}, other files {', '.join(self._widths)}. It "
                "belongs to another model: copy it again."
            )
        if value.size not in {rows * width, self.manifest.batch * width}:
            raise InputError(
                f"{path} holds {value.size} numbers; {rows} row(s) of {width}, as in other files, "
                "are expected. It is truncated, or belongs to another model: copy it again."
            )
        return value.reshape(-1, width)[:rows]


class OutputMatrix:
    """All outputs in one file: a row for each input, in the manifest's order.

    Parameters
    ----------
    file : Path
        ``.npy``, or ``.npz`` with an array for each output, perhaps one ``names`` of input files.
    entries : sequence of Entry

    Raises
    ------
    evalkit.core.errors.InputError
        The rows are not as many as the inputs, or their names are others.
    """

    def __init__(self, file: Path, entries: Sequence[Entry]) -> None:
        rows = sum(len(entry.items) for entry in entries)
        self._first: dict[str, int] = {}
        total = 0
        for entry in entries:
            self._first[entry.file] = total
            total += len(entry.items)
        if file.suffix not in {".npy", ".npz"}:
            raise InputError(
                f"{file} is no folder of outputs, and no .npy or .npz with a row for each input."
            )
        arrays = dict(_read(file, "float32", matrix=True))
        names = arrays.pop("names", None)
        self._arrays = {
            name: value.astype(np.float32, copy=False) for name, value in arrays.items()
        }
        for name, value in self._arrays.items():
            if value.ndim < 2 or len(value) != rows:
                raise InputError(
                    f"{file}: {name} has the shape {value.shape}, but the manifest has {rows} "
                    "inputs, one a row. The rows cannot be matched to the inputs."
                )
        if names is not None:
            _check_names(file, [str(name) for name in names], entries)

    def read(self, entry: Entry) -> Outputs:
        """Return the rows of an input file."""
        first = self._first[entry.file]
        rows = slice(first, first + len(entry.items))
        return {
            name: value[rows].reshape(len(entry.items), -1) for name, value in self._arrays.items()
        }


def _check_names(file: Path, names: list[str], entries: Sequence[Entry]) -> None:
    stems = [entry.stem for entry in entries for _ in entry.items]
    for row, (name, stem) in enumerate(zip(names, stems, strict=False)):
        if Path(name).stem != stem:
            raise InputError(
                f"{file}: row {row} is named {name!r}, but the manifest has {stem!r} there: the "
                "rows are in another order. Write them in the manifest's order."
            )
    if len(names) != len(stems):
        raise InputError(f"{file} names {len(names)} rows; the manifest has {len(stems)}.")


def _naming(folder: Path, present: set[str], entries: Sequence[Entry]) -> Naming:
    """Find out how outputs are named, from the files of the first input that has some."""
    by_stem: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
    for name in present:
        if whole := _WHOLE.fullmatch(name):
            by_stem[whole["stem"]].append((whole["suffix"], None))
        if part := _NUMBERED.fullmatch(name):
            by_stem[part["stem"]].append((part["suffix"], part["number"]))
    for entry in entries:
        files = by_stem.get(entry.stem)
        if not files:
            continue
        suffixes = sorted({suffix for suffix, _ in files})
        if len(suffixes) > 1:
            raise InputError(
                f"{folder} holds outputs of {entry.stem} as {' and '.join(suffixes)}. Keep one."
            )
        numbers = sorted(int(number) for _, number in files if number is not None)
        if any(number is None for _, number in files):
            if numbers:
                raise InputError(
                    f"{folder} holds {entry.stem}{suffixes[0]} and numbered outputs of it. Keep "
                    "one."
                )
            return Naming(suffixes[0], None)
        return Naming(suffixes[0], tuple(range(numbers[-1] + 1)))
    raise _no_outputs(folder, entries[0].stem if entries else "NAME")


def _no_outputs(folder: Path, stem: str) -> CannotJudgeError:
    inside = sorted(path.name for path in folder.iterdir() if path.is_dir())
    hint = f" Did you mean its folder {inside[0]}?" if len(inside) == 1 else ""
    if any(next((folder / name).glob("*.txt"), None) for name in inside):
        hint += (
            " Predictions in WIDER FACE's layout are given to --predictions, without a manifest."
        )
    return CannotJudgeError(
        f"{folder} holds no output of any input: files such as {stem}_0.bin, {stem}_0.txt or "
        f"{stem}.npy are expected.{hint}"
    )


_WHOLE = re.compile(r"(?P<stem>.+)(?P<suffix>\.(bin|txt|npy|npz))")
_NUMBERED = re.compile(r"(?P<stem>.+)_(?P<number>[0-9]{1,3})(?P<suffix>\.(bin|txt|npy|npz))")


def _refuse(folder: Path, expected: set[str], present: set[str]) -> None:
    missing, extra = sorted(expected - present), sorted(present - expected)
    if missing:
        raise CannotJudgeError(
            f"{folder} lacks {_some(missing)} of {len(expected)} outputs. Run the device on the "
            "remaining inputs, or copy the files again."
        )
    if extra:
        raise InputError(
            f"{folder} holds {_some(extra)}, which belong to no input of the manifest. Name a "
            "folder that has only outputs of this dump, or move these files away."
        )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED:,} more"


def _read(path: Path, dtype: str, *, matrix: bool = False) -> list[tuple[str, NDArray[Any]]]:
    """Read the arrays of a file, by name; never with pickles.

    A matrix of all outputs stays on the disk where it can, and may hold the names of its rows.
    """
    try:
        if path.suffix == ".bin":
            if path.stat().st_size % np.dtype(dtype).itemsize:
                raise ValueError(f"its size is no multiple of a {dtype}")
            value = np.fromfile(path, np.dtype(dtype).newbyteorder("<"))
            return [(_output_name(path), value)]
        if path.suffix == ".txt":
            return [(_output_name(path), _text(path))]
        content = np.load(path, mmap_mode="r" if matrix else None, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return [(_output_name(path), _numbers(content))]
        with content:
            return [
                (name, content[name] if matrix and name == "names" else _numbers(content[name]))
                for name in content.files
            ]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read as an output: {error}. Copy it again from the device."
        ) from error


def _text(path: Path) -> NDArray[np.float32]:
    """Read numbers between white space or commas; a line of several is a row."""
    lines = path.read_text(encoding="ascii").replace(",", " ").split("\n")
    rows = [line.split() for line in lines if line.strip()]
    flat = np.array([float(number) for row in rows for number in row], np.float32)
    widths = {len(row) for row in rows}
    return flat.reshape(len(rows), -1) if len(widths) == 1 and len(rows) > 1 else flat


def _numbers(value: NDArray[Any]) -> NDArray[Any]:
    if value.dtype.kind not in "fiu":
        raise ValueError(f"it holds {value.dtype}, not numbers")
    return value


def _output_name(path: Path) -> str:
    match = re.search(r"_([0-9]{1,3})$", path.stem)
    return f"output{match[1]}" if match else "output0"


def _shaped(path: Path, value: NDArray[Any], shape: tuple[int, ...] | None) -> NDArray[Any]:
    """Give a detector's tensor its shape."""
    if shape is None:
        if path.suffix in {".npy", ".npz"}:
            return value
        raise InputError(
            f"{path}: a {path.suffix} file does not contain its shape. Write names and shapes "
            "of the model's outputs under 'outputs' in the runtime info (-1: a size that varies)."
        )
    try:
        return value.reshape(shape)
    except ValueError as error:
        raise InputError(
            f"{path} holds {value.size} numbers, which do not fit the shape {list(shape)}. It is "
            "truncated, or the runtime info names another shape."
        ) from error
