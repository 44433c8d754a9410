"""Outputs as devices write them, read into rows: layouts, batches, types, names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.backends.outputs.manifest import Entry, Item, Manifest
from evalkit.backends.outputs.reading import OutputFolder, OutputMatrix
from evalkit.backends.outputs.runtime_info import OutputSpec, RuntimeInfo
from evalkit.core.errors import CannotJudgeError, InputError

DIM = 6


def manifest(batch: int, samples: int, task: str = "recognition") -> Manifest:
    return Manifest.model_validate(
        {
            "evalkit_version": "1",
            "task": task,
            "protocol": "lfw",
            "dataset": "d",
            "fingerprint": "f",
            "model": "m",
            "preprocessing": {},
            "format": "bin",
            "dtype": "float32",
            "layout": "nchw",
            "batch": batch,
            "samples": samples,
            "opencv": "4",
        }
    )


def entries(batch: int, samples: int, lost: frozenset[int] = frozenset()) -> list[Entry]:
    """As a dump lists them: files of a batch, in which images that could not be read have none."""
    files = []
    for number, first in enumerate(range(0, samples, batch)):
        rows = [row for row in range(first, min(first + batch, samples)) if row not in lost]
        if rows:
            items = tuple(Item(row, str(row), "plain", (3, 2, 2), str(row)) for row in rows)
            files.append(Entry(f"{number:08d}.bin", items))
    return files


def embedding(sample: int) -> np.ndarray:
    return np.random.default_rng(sample).normal(0, 1, DIM).astype(np.float32)


def filled(entry: Entry, batch: int) -> np.ndarray:
    """What the device gives for a file, the rows that fill it up included."""
    rows = [embedding(item.sample) for item in entry.items]
    return np.stack([*rows, *[np.zeros(DIM, np.float32)] * (batch - len(rows))])


Write = Callable[[Path, np.ndarray], None]
WRITERS: dict[str, Write] = {
    "_0.bin": lambda path, value: value.tofile(path),
    "_0.npy": np.save,
    ".npy": np.save,
    ".npz": lambda path, value: np.savez(path, embedding=value),
    "_0.txt": lambda path, value: np.savetxt(path, value.reshape(len(value), -1)),
    "_1.txt": lambda path, value: np.savetxt(path, value.ravel()),
    "_2.txt": lambda path, value: path.write_text(",".join(map(str, value.ravel().tolist()))),
}


@given(st.integers(1, 5), st.integers(1, 11), st.sets(st.integers(0, 10)))
def test_rows_of_any_batch(
    tmp_path_factory: pytest.TempPathFactory, batch: int, samples: int, lost: set[int]
) -> None:
    """Also where the last file, or one with an unreadable image, is filled up."""
    files = entries(batch, samples, frozenset(lost))
    if not files:
        return
    folder = tmp_path_factory.mktemp("outputs")
    for entry in files:
        filled(entry, batch).tofile(folder / f"{entry.stem}_0.bin")
    reader = OutputFolder(folder, files, RuntimeInfo(), manifest(batch, samples))
    for entry in files:
        (rows,) = reader.read(entry).values()
        np.testing.assert_array_equal(rows, filled(entry, batch)[: len(entry.items)])


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("batch", [1, 4])
def test_every_form_gives_the_same_rows(tmp_path: Path, form: str, batch: int) -> None:
    files = entries(batch, 7)
    if form in {"_1.txt", "_2.txt"}:
        form, write = "_0.txt", WRITERS[form]
    else:
        write = WRITERS[form]
    for entry in files:
        write(tmp_path / f"{entry.stem}{form}", filled(entry, batch))
    reader = OutputFolder(tmp_path, files, RuntimeInfo(), manifest(batch, 7))
    for entry in files:
        (rows,) = reader.read(entry).values()
        np.testing.assert_allclose(rows, filled(entry, batch)[: len(entry.items)], rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, DIM, 1, 1), (DIM,), (DIM, 1)])
def test_a_vector_of_any_shape_is_one_row(tmp_path: Path, shape: tuple[int, ...]) -> None:
    files = entries(1, 3)
    for entry in files:
        np.save(tmp_path / f"{entry.stem}.npy", filled(entry, 1).reshape(shape))
    reader = OutputFolder(tmp_path, files, RuntimeInfo(), manifest(1, 3))
    np.testing.assert_array_equal(reader.read(files[1])["output0"], filled(files[1], 1))


def test_rows_that_fill_up_may_be_left_out(tmp_path: Path) -> None:
    files = entries(4, 6)
    for entry in files:
        filled(entry, 4)[: len(entry.items)].tofile(tmp_path / f"{entry.stem}_0.bin")
    reader = OutputFolder(tmp_path, files, RuntimeInfo(), manifest(4, 6))
    assert reader.read(files[1])["output0"].shape == (2, DIM)


def test_half_precision_files(tmp_path: Path) -> None:
    files = entries(1, 2)
    for entry in files:
        filled(entry, 1).astype("<f2").tofile(tmp_path / f"{entry.stem}_0.bin")
    info = RuntimeInfo(output_dtype="float16")
    outputs = OutputFolder(tmp_path, files, info, manifest(1, 2)).read(files[0])["output0"]
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, filled(files[0], 1), rtol=1e-3)


@pytest.mark.parametrize("place", [0, 3, 6])
@pytest.mark.parametrize("form", ["_0.bin", "_0.npy", ".npz", "_0.txt"])
def test_the_file_that_is_cut_is_the_one_named(tmp_path: Path, form: str, place: int) -> None:
    files = entries(1, 7)
    for entry in files:
        WRITERS[form](tmp_path / f"{entry.stem}{form}", filled(entry, 1))
    bad = tmp_path / f"{files[place].stem}{form}"
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])

    def read_all() -> None:
        reader = OutputFolder(tmp_path, files, RuntimeInfo(), manifest(1, 7))
        for entry in files:
            reader.read(entry)

    with pytest.raises(InputError, match=bad.name):
        read_all()


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    files = entries(1, 1)
    np.save(tmp_path / "00000000.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read as an output"):
        OutputFolder(tmp_path, files, RuntimeInfo(), manifest(1, 1))


def test_two_outputs_of_one_name_need_names(tmp_path: Path) -> None:
    files = entries(1, 1)
    for number in range(2):
        np.savez(tmp_path / f"00000000_{number}.npz", filled(files[0], 1))
    with pytest.raises(InputError, match="several outputs 'arr_0'"):
        OutputFolder(tmp_path, files, RuntimeInfo(), manifest(1, 1))
    specs = (OutputSpec(name="a"), OutputSpec(name="b"))
    reader = OutputFolder(tmp_path, files, RuntimeInfo(outputs=specs), manifest(1, 1))
    assert list(reader.read(files[0])) == ["a", "b"]


def test_an_output_that_only_some_files_have(tmp_path: Path) -> None:
    files = entries(1, 2)
    for entry, name in zip(files, "ab", strict=True):
        np.savez(tmp_path / f"{entry.stem}.npz", **{name: filled(entry, 1)})
    reader = OutputFolder(tmp_path, files[:1] + files[1:], RuntimeInfo(), manifest(1, 2))
    # Both are known names; a third file has one that none of those looked at had.
    np.savez(tmp_path / "00000001.npz", c=filled(files[1], 1))
    with pytest.raises(InputError, match="holds an output 'c'"):
        reader.read(files[1])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["00000000_0.bin", "00000000_0.txt"], "Keep one"),
        (["00000000.bin", "00000000_0.bin"], "numbered outputs of it"),
        (["00000001_0.bin"], "lacks 00000000_0.bin"),
        (["other.bin"], "holds no output of any input"),
    ],
)
def test_names_that_are_no_device_s(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).write_bytes(bytes(4 * DIM))
    with pytest.raises((InputError, CannotJudgeError), match=message):
        OutputFolder(tmp_path, entries(1, 2), RuntimeInfo(), manifest(1, 2))


def test_predictions_are_told_from_outputs(tmp_path: Path) -> None:
    (tmp_path / "0--Parade").mkdir()
    (tmp_path / "0--Parade" / "a.txt").write_text("a\n0\n")
    with pytest.raises(CannotJudgeError, match="--predictions"):
        OutputFolder(tmp_path, entries(1, 1), RuntimeInfo(), manifest(1, 1, "detection"))


def test_what_tools_write_beside_is_left_alone(tmp_path: Path) -> None:
    files = entries(1, 1)
    filled(files[0], 1).tofile(tmp_path / "00000000_0.bin")
    for name in ("sumary.json", "run_summary.json", "ais.log", ".hidden"):
        (tmp_path / name).write_text("{}")
    assert OutputFolder(tmp_path, files, RuntimeInfo(), manifest(1, 1)).read(files[0])


@pytest.mark.parametrize("name", ["all.npy", "all.npz"])
def test_a_matrix(tmp_path: Path, name: str) -> None:
    files = entries(4, 6)
    rows = np.stack([embedding(sample) for sample in range(6)])
    if name.endswith("npz"):
        np.savez(tmp_path / name, output=rows)
    else:
        np.save(tmp_path / name, rows)
    reader = OutputMatrix(tmp_path / name, files)
    (outputs,) = reader.read(files[1]).values()
    np.testing.assert_array_equal(outputs, rows[4:])


def test_a_matrix_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("1,2")
    with pytest.raises(InputError, match=r"no \.npy or \.npz with a row for each input"):
        OutputMatrix(tmp_path / "all.csv", entries(1, 1))
