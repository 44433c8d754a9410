"""Text tables: every accepted spelling, every refused one, and the cache."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalkit.datasets import tables
from evalkit.datasets.errors import DatasetError
from evalkit.datasets.tables import Field, Table, read_csv, read_table

FIELDS = (Field("image", "text"), Field("point", "float", 2), Field("template", "int"))
FLAGGED = (*FIELDS, Field("label", "flag"))
ONE_TO_N = (Field("TEMPLATE_ID", "int"), Field("SUBJECT_ID", "int"))


def written(folder: Path, text: str | bytes, name: str = "table.txt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def reference(path: Path) -> tuple[list[bytes], list[list[np.float32]], list[int], list[bool]]:
    """Read by a plain loop over lines."""
    rows = [line.split() for line in path.read_bytes().splitlines() if line.strip()]
    return (
        [row[0] for row in rows],
        [[np.float32(row[1].decode()), np.float32(row[2].decode())] for row in rows],
        [int(row[3]) for row in rows],
        [row[4] == b"1" for row in rows],
    )


def as_lists(table: Table) -> tuple[list[object], ...]:
    return tuple(column.tolist() for column in table.columns.values())


names = st.text(st.characters(min_codepoint=33, exclude_categories=("Z", "C")), min_size=1)
rows = st.tuples(
    names,
    st.floats(-(2.0**100), 2.0**100, width=32),
    st.floats(-(2.0**100), 2.0**100, width=32),
    st.integers(-(2**31), 2**31 - 1),
    st.sampled_from("01"),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    st.lists(rows, min_size=1, max_size=8),
    st.sampled_from([" ", "  ", "\t", " \t "]),
    st.sampled_from(["\n", "\r\n", " \n", "\n\n", "\n \n"]),
    st.booleans(),
)
def test_reads_what_a_loop_over_lines_reads(
    tmp_path: Path, cells: list[tuple[object, ...]], space: str, end: str, final: bool
) -> None:
    lines = [space.join(str(cell) for cell in row) for row in cells]
    path = written(tmp_path, end.join(lines) + (end if final else ""))
    image, point, template, label = reference(path)
    table = read_table(path, FLAGGED)
    assert as_lists(table) == (image, point, template, label)
    assert [array.dtype.kind for array in table.columns.values()] == ["S", "f", "i", "b"]
    assert table.columns["point"].dtype == np.float32
    assert table.columns["template"].dtype == np.int32


def test_shapes_and_digest(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jpg 1.5 2 7\nb.jpg -3 4e1 8\n")
    table = read_table(path, FIELDS)
    assert len(table) == 2
    assert table.columns["point"].shape == (2, 2)
    assert table.columns["template"].shape == (2,)
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbfa.jpg 1 2 3\n")
    assert read_table(path, FIELDS).columns["image"].tolist() == [b"a.jpg"]
    path = written(tmp_path, b"\xef\xbb\xbfa.jpg  1 2 3\n")
    assert read_table(path, FIELDS).columns["image"].tolist() == [b"a.jpg"]


def test_line_of_skips_blank_lines(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "\na 1 2 3\n\n \nb 1 2 3\n"), FIELDS)
    assert [table.line_of(row) for row in range(2)] == [2, 5]
    with pytest.raises(IndexError, match="no row 2"):
        table.line_of(2)


GOOD = "a.jpg 1 2 3 0\n"


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("b.jpg 1 2 3", "4 columns where 5 are expected"),
        ("b.jpg 1 2 3 1 9", "6 columns where 5 are expected"),
        ("b.jpg", "1 columns where 5 are expected"),
        ("b.jpg 1 2 3 2", "label is '2', not 0 or 1"),
        ("b.jpg 1 2 3 true", "label is 'true', not 0 or 1"),
        ("b.jpg 1 2 3.0 1", "template is '3.0', not a 32-bit integer"),
        ("b.jpg 1 2 2147483648 1", "template is '2147483648', not a 32-bit integer"),
        ("b.jpg 1 2 x 1", "template is 'x', not a 32-bit integer"),
        ("b.jpg 1 2 +3 1", "template is '\\+3', not a 32-bit integer"),
        ("b.jpg 1 2 3_0 1", "template is '3_0', not a 32-bit integer"),
        ("b.jpg 1 two 3 1", "point is 'two', not a finite number"),
        ("b.jpg 1 nan 3 1", "point is not a finite number"),
        ("b.jpg inf 2 3 1", "point is not a finite number"),
        ("b.jpg 1 1e39 3 1", "point is not a finite number"),
        (" 1 2 3 1", "image is not a name"),
        ("b.jpg,1,2,3,1", "1 columns where 5 are expected"),
    ],
)
@pytest.mark.parametrize("tail", ["", "\n", "\n" + GOOD])
def test_malformed_rows_are_named(tmp_path: Path, bad: str, problem: str, tail: str) -> None:
    path = written(tmp_path, GOOD * 3 + "\n" + bad + tail)
    with pytest.raises(DatasetError, match=problem) as caught:
        read_table(path, FLAGGED)
    assert caught.value.path == path
    assert caught.value.line == 5
    assert f"{path}:5: " in str(caught.value)
    assert "Correct the line" in str(caught.value)


def test_a_bad_row_far_into_a_large_file_is_found(tmp_path: Path) -> None:
    count = 400_000
    path = written(tmp_path, GOOD * count + "b.jpg 1 2 3\n" + GOOD * count)
    assert path.stat().st_size > 2 * tables._BLOCK_BYTES
    with pytest.raises(DatasetError) as caught:
        read_table(path, FLAGGED)
    assert caught.value.line == count + 1


@pytest.mark.parametrize("text", ["", "\n", " \n\n"])
def test_empty_files_are_refused(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DatasetError, match=r"The file is empty\. Take it from the release again"):
        read_table(path, FIELDS)
    with pytest.raises(DatasetError):
        read_csv(path, ONE_TO_N)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.txt: The file cannot be read: No such file"):
        read_table(tmp_path / "none.txt", FIELDS)
    with pytest.raises(DatasetError, match="cannot be read: Is a directory"):
        read_table(tmp_path, FIELDS)


def test_csv_reads_the_first_columns(tmp_path: Path) -> None:
    text = 'template_id,SUBJECT_ID,FILENAME\r\n7,1,"img/1,2.jpg"\r\n9,-2,b\r\n'
    table = read_csv(written(tmp_path, text), ONE_TO_N)
    assert as_lists(table) == ([7, 9], [1, -2])
    assert table.line_of(1) == 3


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("SUBJECT_ID,TEMPLATE_ID\n1,2\n", 1, "header does not begin with TEMPLATE_ID,SUBJECT_ID"),
        ("1,2\n3,4\n", 1, "header does not begin"),
        ("\n1,2\n", 1, "header does not begin"),
        ("TEMPLATE_ID,SUBJECT_ID,X\n1,2,3\n1,2\n", 3, "2 columns where 3"),
        ("TEMPLATE_ID,SUBJECT_ID,X\n1,2,3\n1,,3\n", 3, "SUBJECT_ID is '', not a 32-bit"),
    ],
)
def test_malformed_csv_is_named(tmp_path: Path, text: str, line: int, problem: str) -> None:
    with pytest.raises(DatasetError, match=problem) as caught:
        read_csv(written(tmp_path, text), ONE_TO_N)
    assert caught.value.line == line


def test_csv_with_a_header_only_is_empty(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="The file is empty"):
        read_csv(written(tmp_path, "TEMPLATE_ID,SUBJECT_ID\n"), ONE_TO_N)


@pytest.fixture
def cached(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A table, its cache folder and its one entry."""
    path, cache = written(tmp_path, GOOD + "b.jpg 5 6 7 1\n"), tmp_path / "deep" / "cache"
    read_table(path, FLAGGED, cache_dir=cache)
    (entry,) = cache.iterdir()
    return path, cache, entry


def forbid_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(*_: object) -> None:
        raise AssertionError("the text was parsed again")

    monkeypatch.setattr(tables, "_parse", parse)


def test_cache_gives_the_same_table(
    cached: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache, _ = cached
    fresh = read_table(path, FLAGGED)
    forbid_parsing(monkeypatch)
    kept = read_table(path, FLAGGED, cache_dir=cache)
    assert as_lists(kept) == as_lists(fresh)
    assert kept.sha256 == fresh.sha256
    for name, array in fresh.columns.items():
        assert kept.columns[name].dtype == array.dtype


@pytest.mark.parametrize("change", ["size", "time", "fields"])
def test_cache_is_renewed_when_the_file_changes(
    cached: tuple[Path, Path, Path], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache, entry = cached
    fields = FLAGGED
    if change == "size":
        path.write_text(GOOD)
    elif change == "time":
        state = path.stat()
        path.write_text(path.read_text().replace("5", "9"))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    else:
        fields = (*FIELDS, Field("label", "int"))
    renewed = read_table(path, fields, cache_dir=cache)
    assert as_lists(renewed) == as_lists(read_table(path, fields))
    assert list(cache.iterdir()) == [entry]
    forbid_parsing(monkeypatch)
    assert as_lists(read_table(path, fields, cache_dir=cache)) == as_lists(renewed)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 1",)


def damage(entry: Path, how: str) -> None:
    data = bytearray(entry.read_bytes())
    if how == "truncated":
        entry.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        entry.write_bytes(b"")
    elif how == "one byte":
        data[data.index(b"b.jpg")] ^= 1
        entry.write_bytes(data)
    elif how == "pickle":
        entry.write_bytes(pickle.dumps(Bomb()))
    elif how == "pickled member":
        with entry.open("wb") as file:
            np.savez(file, stamp=np.array([Bomb()], object))
    else:
        with entry.open("wb") as file:
            np.savez(file, other=np.zeros(3))


@pytest.mark.parametrize(
    "how", ["truncated", "empty", "one byte", "pickle", "pickled member", "another file"]
)
def test_damaged_cache_is_ignored_and_rewritten(
    cached: tuple[Path, Path, Path], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache, entry = cached
    damage(entry, how)
    expected = as_lists(read_table(path, FLAGGED))
    assert as_lists(read_table(path, FLAGGED, cache_dir=cache)) == expected
    assert list(cache.iterdir()) == [entry]
    forbid_parsing(monkeypatch)
    assert as_lists(read_table(path, FLAGGED, cache_dir=cache)) == expected


def test_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    blocked = written(tmp_path, "a file, not a folder", "cache")
    assert len(read_table(path, FLAGGED, cache_dir=blocked)) == 1


def test_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables.np, "savez", full)
    read_table(written(tmp_path, GOOD), FLAGGED, cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_bad_tables_are_not_cached(tmp_path: Path) -> None:
    with pytest.raises(DatasetError):
        read_table(written(tmp_path, "a nan 2 3\n"), FIELDS, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
