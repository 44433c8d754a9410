"""Files that are written complete or not at all, hashes, and where caches lie."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from evalkit.core.errors import InputError
from evalkit.core.files import atomic_write, cache_dir, sha256_file, sha256_json


def test_a_file_takes_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    held = os.umask(0o027)
    try:
        with atomic_write(path) as file:
            file.write(b"whole")
            assert not path.exists()
    finally:
        os.umask(held)
    assert path.read_bytes() == b"whole"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), atomic_write(path) as file:
        file.writelines([b"half", None])  # type: ignore[list-item]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_names_the_file(tmp_path: Path, number: int) -> None:
    path = tmp_path / "file"
    message = f"Cannot write {path}: {os.strerror(number)}"
    with pytest.raises(InputError, match=message), atomic_write(path):
        raise OSError(number, os.strerror(number))
    assert not list(tmp_path.iterdir())


def test_a_fault_that_is_not_the_users_is_raised_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="bad descriptor"), atomic_write(tmp_path / "file"):
        raise OSError(errno.EBADF, "bad descriptor")


def test_a_parent_that_is_no_folder_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    below = tmp_path / "file" / "below"
    with pytest.raises(InputError, match=f"Cannot write {below}: "), atomic_write(below):
        pass


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    published = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    assert sha256_file(tmp_path / "abc") == published
    assert sha256_json({"b": 1, "a": "\u00e9"}) == sha256_json({"a": "\u00e9", "b": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 1.5})


def test_the_cache_lies_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVALKIT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "evalkit"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/evalkit")
    monkeypatch.setenv("EVALKIT_CACHE", "/named")
    assert cache_dir() == Path("/named")
