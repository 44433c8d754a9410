"""What a comparison asks of a store: to be opened by its folder alone, and the samples' names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evalkit.core.errors import InputError
from evalkit.core.store import Shard, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path, {"data": "d", "model": "m"}, 3, ["embeddings"])
    with made.writing():
        made.write(
            0,
            Shard(
                outputs={"embeddings": np.ones((3, 2))},
                digests=np.zeros((3, 8), np.uint8),
                stamps=np.zeros((3, 2), np.int64),
                failures=(),
                decode_seconds=1.0,
                inference_seconds=1.0,
            ),
        )
    return made


def test_a_store_opens_by_its_folder(store: Store) -> None:
    opened = Store.open(store.folder)
    assert opened.key == store.key
    assert opened.key["data"] == "d"
    np.testing.assert_array_equal(opened.read(0).outputs["embeddings"], np.ones((3, 2)))


def test_names_are_kept_and_numbers_stand_in(store: Store) -> None:
    assert store.names() == ["sample 0", "sample 1", "sample 2"]
    store.write_names(["a.jpg", "ü\udcff.jpg", "<b>"])
    assert Store.open(store.folder).names() == ["a.jpg", "ü\udcff.jpg", "<b>"]
    store.write_names(["one of another run"])
    assert store.names()[0] == "sample 0"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"key": {"samples": 3}}'])
def test_a_folder_without_a_store_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "store.json").write_text(content)
    with pytest.raises(InputError, match="no outputs store"):
        Store.open(tmp_path)
