"""The outputs store: keys, resuming, damage, locks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.core.errors import CannotJudgeError, InputError
from evalkit.core.results import Failure
from evalkit.core.store import SHARD, Shard, Store, store_name

SAMPLES = SHARD + 3
FIELDS = ["embeddings", "flipped"]
KEY: dict[str, Any] = {"data": "d", "model": "m"}


def shard(count: int, value: float = 1.0, failures: tuple[Failure, ...] = ()) -> Shard:
    return Shard(
        outputs={
            "embeddings": np.full((count, 4), value, np.float32),
            "flipped": np.full((count, 4), -value, np.float32),
        },
        digests=np.zeros((count, 8), np.uint8),
        stamps=np.zeros((count, 2), np.int64),
        failures=failures,
        decode_seconds=1.0,
        inference_seconds=2.0,
    )


def filled(folder: Path) -> Store:
    store = Store(folder, KEY, SAMPLES, FIELDS)
    with store.writing():
        store.write(0, shard(SHARD, 1.0))
        store.write(SHARD, shard(3, 2.0, (Failure(name="ü.jpg", reason="no file"),)))
    return store


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = filled(tmp_path / "store")
    assert store.missing() == []
    spans = list(Store(tmp_path / "store", KEY, SAMPLES, FIELDS).shards())
    assert [span for span, _ in spans] == [slice(0, SHARD), slice(SHARD, SAMPLES)]
    last = spans[1][1]
    assert last.failures == (Failure(name="ü.jpg", reason="no file"),)
    np.testing.assert_array_equal(last.outputs["embeddings"], np.full((3, 4), 2.0, np.float32))
    np.testing.assert_array_equal(last.outputs["flipped"], -last.outputs["embeddings"])


@pytest.mark.parametrize("damage", ["truncate", "garbage", "flip a byte", "remove"])
def test_a_damaged_shard_is_computed_again(tmp_path: Path, damage: str) -> None:
    store = filled(tmp_path)
    path = tmp_path / f"shard-{SHARD:09d}.npz"
    held = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(held[: len(held) // 2])
    elif damage == "garbage":
        path.write_bytes(b"not a zip file")
    else:
        at = held.index(np.full(4, 2.0, np.float32).tobytes())
        held[at] ^= 1
        path.write_bytes(held)
    assert store.missing() == [SHARD]
    with pytest.raises(CannotJudgeError, match="missing or damaged"):
        store.read(SHARD)


def test_another_run_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(InputError, match=r"another run: model differs"):
        Store(tmp_path, {**KEY, "model": "other"}, SAMPLES, FIELDS)
    with pytest.raises(InputError, match=r"fields, samples differ"):
        Store(tmp_path, KEY, SAMPLES + 1, FIELDS[:1])


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="not an outputs store"):
        Store(tmp_path, KEY, 1, FIELDS)


@pytest.mark.parametrize("manifest", ["", "{", "[]", '{"key": 3}', "{}"])
def test_a_damaged_manifest_is_a_clear_error(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "store.json").write_text(manifest)
    with pytest.raises(InputError, match="damaged"):
        Store(tmp_path, KEY, 1, FIELDS)


def test_shards_of_changed_samples_are_not_valid(tmp_path: Path) -> None:
    store = filled(tmp_path)
    held = store.valid(lambda span, _: span.start == SHARD)
    assert held == {SHARD: (Failure(name="ü.jpg", reason="no file"),)}


def test_notes_are_read_without_outputs(tmp_path: Path) -> None:
    (_, first), _ = filled(tmp_path).shards(outputs=False)
    assert first.outputs == {}
    assert first.decode_seconds == 1.0


def test_what_a_kill_leaves_behind_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".store.json.abc.partial").write_bytes(b"{")
    store = Store(tmp_path, KEY, 1, FIELDS)
    with store.writing():
        assert not list(tmp_path.glob(".*.partial"))


def test_a_folder_that_became_another_runs_is_refused(tmp_path: Path) -> None:
    late = Store(tmp_path, KEY, 1, FIELDS)
    with Store(tmp_path, {**KEY, "model": "other"}, 1, FIELDS).writing():
        pass
    with pytest.raises(InputError, match="another run: model differs"), late.writing():
        pytest.fail("wrote into another run's store")
    assert json.loads((tmp_path / "store.json").read_text())["key"]["model"] == "other"


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    first = Store(tmp_path, KEY, 1, FIELDS)
    with first.writing():
        second = Store(tmp_path, KEY, 1, FIELDS)
        with pytest.raises(InputError, match="Another run is writing"), second.writing():
            pytest.fail("two writers")
    with Store(tmp_path, KEY, 1, FIELDS).writing():
        pass


def test_no_partial_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    store = Store(tmp_path, KEY, SAMPLES, FIELDS)
    monkeypatch.setattr(np, "savez", full_disk)
    with store.writing(), pytest.raises(InputError, match="No space left on device"):
        store.write(0, shard(SHARD))
    assert {path.name for path in tmp_path.iterdir()} == {"store.json", ".lock"}


def test_the_name_depends_on_content_not_order() -> None:
    assert store_name({"a": 1, "b": 2}) == store_name(json.loads('{"b": 2, "a": 1}'))
    assert store_name({"a": 1}) != store_name({"a": 2})
