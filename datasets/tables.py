"""Text tables of numbers and names: read fast, checked strictly, and cached."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from evalkit.datasets.errors import DatasetError

Kind = Literal["text", "int", "float", "flag"]

_CACHE_FORMAT: Final = 1
_BLOCK_BYTES: Final = 1 << 22
_BOM: Final = b"\xef\xbb\xbf"
_STAMP: Final = "stamp"
_DAMAGE: Final = (
    *(OSError, ValueError, KeyError, AttributeError, EOFError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What NumPy raises on a damaged archive."""

_ARROW: Final[Mapping[Kind, Any]] = {
    "text": pa.binary(),
    "int": pa.int32(),
    "float": pa.float32(),
    "flag": pa.bool_(),
}
_MEANS: Final[Mapping[Kind, str]] = {
    "text": "a name",
    "int": "a 32-bit integer",
    "float": "a finite number",
    "flag": "0 or 1",
}
_INTEGER: Final = re.compile(rb"-?[0-9]+")
_LARGEST_FLOAT: Final = float(np.finfo(np.float32).max)
_NUMBER: Final = re.compile(rb"-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Field:
    """One or more neighbouring columns that form one array.

    Attributes
    ----------
    name : str
        Its name in the table.
    kind : {"text", "int", "float", "flag"}
        What its cells are: bytes, int32, float32, or 0 / 1 read as bool.
    width : int
        How many columns; above 1 the array is two-dimensional.
    """

    name: str
    kind: Kind
    width: int = 1


@dataclass(frozen=True, slots=True)
class Table:
    """A table's arrays.

    Attributes
    ----------
    path : Path
        The text file.
    columns : mapping of str to ndarray
        An array of shape (rows,) or (rows, width) a field.
    sha256 : str
        Digest of the text file, in hexadecimal.
    header_lines : int
        Lines before the first row.
    """

    path: Path
    columns: Mapping[str, NDArray[Any]]
    sha256: str
    header_lines: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def line_of(self, row: int) -> int:
        """Line (from 1) of the text file that holds a row; reads the file up to there."""
        lines = (number for number, line in _lines(self.path) if line.strip())
        for seen, number in enumerate(lines):
            if seen == row + self.header_lines:
                return number
        raise IndexError(f"{self.path} has no row {row}")


def read_table(
    path: str | Path, fields: Sequence[Field], *, cache_dir: str | Path | None = None
) -> Table:
    """Read a text file without header whose columns are separated by spaces or tabs.

    Blank lines are skipped. CRLF and a missing final newline are accepted. So are repeated and
    trailing spaces, which cost a second pass.

    Parameters
    ----------
    path : path-like
        The file.
    fields : sequence of Field
        Its columns from left to right, all of them.
    cache_dir : path-like, optional
        Folder of the cache. The arrays are read from it as long as the file's size and time of
        change stay the same. A broken entry is replaced.

    Raises
    ------
    DatasetError
        The file is missing, empty or malformed; names the line.
    """
    path = Path(path)
    size = _size(path)
    entry = None if cache_dir is None else _CacheEntry.of(path, fields, Path(cache_dir))
    cached = entry and entry.read()
    if cached:
        return cached
    if size == 0:
        raise _no_rows(path)
    table = _read(path, fields, " ", sum(field.width for field in fields))
    if entry:
        entry.write(table)
    return table


def read_csv(path: str | Path, fields: Sequence[Field]) -> Table:
    """Read the first columns of a comma separated file with a header line.

    Parameters
    ----------
    path : path-like
        The file.
    fields : sequence of Field
        The columns to read, by the names that the header must begin with (in any case).

    Raises
    ------
    DatasetError
        The file is missing, empty or malformed, or has another header; names the line.
    """
    path = Path(path)
    if _size(path) == 0:
        raise _no_rows(path)
    header = _cells(next(_lines(path))[1], ",")
    names = [field.name for field in fields]
    if [cell.strip().decode("latin-1").upper() for cell in header[: len(names)]] != names:
        raise DatasetError(
            f"The header does not begin with {','.join(names)}",
            path=path,
            line=1,
            remedy="Take the file from the release again, header included.",
        )
    return _read(path, fields, ",", len(header))


def _read(path: Path, fields: Sequence[Field], delimiter: str, width: int) -> Table:
    """Parse and hash at the same time: both release the interpreter's lock."""
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(_sha256, path)
        parsed = _parse(path, fields, delimiter, width)
        columns = _arrays(parsed, fields)
        if not parsed.num_rows:
            raise _no_rows(path)
        table = Table(path, columns, digest.result(), _header_lines(delimiter))
    del parsed
    pa.default_memory_pool().release_unused()
    for field in fields:
        _refuse_odd_cells(table, field)
    return table


def _parse(path: Path, fields: Sequence[Field], delimiter: str, width: int) -> pa.Table:
    try:
        return _arrow_table(str(path), fields, delimiter, width)
    except pa.ArrowInvalid as error:
        if delimiter == " ":
            tidy = b"\n".join(b" ".join(line.split()) for _, line in _lines(path))
            with contextlib.suppress(pa.ArrowInvalid):
                return _arrow_table(BytesIO(tidy), fields, delimiter, width)
        raise _located(path, fields, delimiter, width, error) from error


def _header_lines(delimiter: str) -> int:
    return int(delimiter == ",")


def _arrow_table(
    source: str | BytesIO, fields: Sequence[Field], delimiter: str, width: int
) -> pa.Table:
    kinds = [field.kind for field in fields for _ in range(field.width)]
    names = [str(index) for index in range(width)]
    return pacsv.read_csv(
        source,
        pacsv.ReadOptions(
            column_names=names, skip_rows=_header_lines(delimiter), block_size=_BLOCK_BYTES
        ),
        pacsv.ParseOptions(delimiter=delimiter, quote_char='"' if delimiter == "," else False),
        pacsv.ConvertOptions(
            column_types={name: _ARROW[kind] for name, kind in zip(names, kinds, strict=False)},
            include_columns=names[: len(kinds)],
            null_values=[],
            true_values=["1"],
            false_values=["0"],
            check_utf8=False,
        ),
    )


def _arrays(parsed: pa.Table, fields: Sequence[Field]) -> dict[str, NDArray[Any]]:
    """Copy a field's columns, chunk by chunk, into one array."""
    arrays: dict[str, NDArray[Any]] = {}
    first = 0
    for field in fields:
        columns = parsed.columns[first : first + field.width]
        first += field.width
        if field.kind == "text":
            arrays[field.name] = np.array(columns[0].to_pylist(), np.bytes_)
            continue
        kind = columns[0].type.to_pandas_dtype()
        array: NDArray[Any] = np.empty((parsed.num_rows, field.width), kind)
        for index, column in enumerate(columns):
            chunks = [chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks]
            np.concatenate(chunks, out=array[:, index])
        arrays[field.name] = array if field.width > 1 else array[:, 0]
    return arrays


def _refuse_odd_cells(table: Table, field: Field) -> None:
    """Refuse what pyarrow accepts: empty names, ``nan`` and ``inf``."""
    array = table.columns[field.name]
    if field.kind == "text":
        bad = array == b""
    elif field.kind == "float":
        bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    else:
        return
    if bad.any():
        raise _malformed(
            table.path,
            table.line_of(int(bad.argmax())),
            f"The {field.name} is not {_MEANS[field.kind]}",
        )


def _located(
    path: Path, fields: Sequence[Field], delimiter: str, width: int, error: Exception
) -> DatasetError:
    """Find the line that pyarrow could not read, in a slow pass."""
    kinds = [(field.name, field.kind) for field in fields for _ in range(field.width)]
    for number, line in _lines(path):
        if not line.strip() or number <= _header_lines(delimiter):
            continue
        cells = _cells(line, delimiter)
        if len(cells) != width:
            return _malformed(path, number, f"{len(cells)} columns where {width} are expected")
        for (name, kind), cell in zip(kinds, cells, strict=False):
            if not _is_valid(cell.strip(), kind):
                shown = cell[:40].decode("utf-8", "backslashreplace")
                return _malformed(path, number, f"The {name} is {shown!r}, not {_MEANS[kind]}")
    return DatasetError(f"It does not parse as a table: {error}", path=path)


def _malformed(path: Path, line: int, problem: str) -> DatasetError:
    remedy = "Correct the line, or take the file from the release again if it was cut off."
    return DatasetError(problem, path=path, line=line, remedy=remedy)


def _no_rows(path: Path) -> DatasetError:
    return DatasetError("The file is empty", path=path, remedy="Take it from the release again.")


def _size(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DatasetError(
            f"The file cannot be read: {error.strerror}",
            path=path,
            remedy="Check that the release is complete and unpacked there.",
        ) from error


def _is_valid(cell: bytes, kind: Kind) -> bool:
    if kind == "text":
        return bool(cell)
    if kind == "flag":
        return cell in (b"0", b"1")
    if kind == "int":
        return bool(_INTEGER.fullmatch(cell)) and -(2**31) <= int(cell) < 2**31
    return bool(_NUMBER.fullmatch(cell)) and abs(float(cell)) <= _LARGEST_FLOAT


def _cells(line: bytes, delimiter: str) -> list[bytes]:
    if delimiter == " ":
        return line.split()
    row: list[str] = next(csv.reader([line.decode("latin-1")]), [])
    return [cell.encode("latin-1") for cell in row]


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines and their numbers from 1, without line ends or a byte order mark."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = line.removeprefix(_BOM) if number == 1 else line
            yield number, text.rstrip(b"\r\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class _CacheEntry:
    """The file of one table in the cache, and the state of the text file that it belongs to."""

    path: Path
    fields: Sequence[Field]
    file: Path
    stamp: Mapping[str, Any]

    @classmethod
    def of(cls, path: Path, fields: Sequence[Field], folder: Path) -> _CacheEntry:
        absolute, state = path.resolve(), path.stat()
        stamp = {
            "format": _CACHE_FORMAT,
            "path": str(absolute),
            "size": state.st_size,
            "mtime_ns": state.st_mtime_ns,
            "fields": [[field.name, field.kind, field.width] for field in fields],
        }
        key = hashlib.sha256(os.fsencode(absolute)).hexdigest()[:16]
        return cls(path, fields, folder / f"{path.stem}-{key}.npz", stamp)

    def read(self) -> Table | None:
        """Load the table; None if there is none, or it is outdated or damaged."""
        try:
            with np.load(self.file, allow_pickle=False) as arrays:
                stamp = json.loads(arrays[_STAMP].item())
                digest = stamp.pop("sha256")
                if stamp != self.stamp:
                    return None
                columns = {field.name: arrays[field.name] for field in self.fields}
        except _DAMAGE:
            return None
        return Table(self.path, columns, digest)

    def write(self, table: Table) -> None:
        """Write a table. A folder that cannot be written to is no error: it costs only speed."""
        stamp = json.dumps({**self.stamp, "sha256": table.sha256})
        arrays: dict[str, Any] = {**table.columns, _STAMP: np.array(stamp)}
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.file.parent, suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as file:
                    np.savez(file, **arrays)
                Path(temporary).replace(self.file)
            finally:
                Path(temporary).unlink(missing_ok=True)
