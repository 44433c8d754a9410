"""MXNet's int8: every tensor calibrated, layers excluded, and what ran told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from mxnet_files import write_mxnet
from numpy.typing import NDArray
from tiny_network import SIDE, Tiny, batch

from evalkit.backends.base import SessionOptions
from evalkit.backends.worker.session import isolated
from evalkit.convert.base import ConvertSettings, Method
from evalkit.convert.mxnet import MxnetConverter
from evalkit.core.errors import InputError

NAMED = os.environ.get("EVALKIT_MXNET_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NAMED is None, reason="EVALKIT_MXNET_PYTHON names no interpreter"),
]
INT8 = SessionOptions("int8", threads=1, image=(3, SIDE, SIDE))


class Drawn(Sequence[NDArray[np.float32]]):
    """Calibration batches like those that are compared."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> NDArray[np.float32]:  # type: ignore[override]
        if index >= len(self):
            raise IndexError
        return np.random.default_rng(index).normal(0, 1, (16, 3, SIDE, SIDE)).astype(np.float32)


def settings(method: Method = "minmax", exclude: tuple[str, ...] = ()) -> ConvertSettings:
    python = Path(str(NAMED))
    return ConvertSettings("int8", method=method, exclude=exclude, threads=1, python=python)


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "made"
    folder.mkdir()
    yield folder / "tiny8-symbol.json"
    names = {path.name for path in folder.iterdir()}
    assert names <= {"tiny8-symbol.json", "tiny8-0000.params"}


@pytest.mark.parametrize("method", ["minmax", "entropy"])
def test_int8_is_near_fp32_and_runs_as_int8(
    method: Method, tiny: Tiny, tmp_path: Path, out: Path
) -> None:
    built = MxnetConverter.build(write_mxnet(tiny, tmp_path), out, settings(method), Drawn())
    assert built.versions["mxnet"] == "1.9.1"
    images = batch(8)
    with isolated("mxnet", str(NAMED)).open(out, INT8) as session:
        (given,) = session.run(images).values()
        assert session.ran.precision_ran == "int8"
        assert session.ran.details["heavy_kernels_by_precision"] == {"int8": 2}
    wanted = tiny(images)
    cosine = (given * wanted).sum(1) / np.linalg.norm(given, axis=1)
    assert (cosine / np.linalg.norm(wanted, axis=1)).min() > 0.995
    assert not np.allclose(given, wanted, rtol=1e-5)


def test_every_quantised_tensor_has_a_range(tiny: Tiny, tmp_path: Path, out: Path) -> None:
    """The toolchain's own collector passes over what oneDNN holds in layouts of its own."""
    built = MxnetConverter.build(write_mxnet(tiny, tmp_path), out, settings(), Drawn())
    nodes = json.loads(out.read_text())["nodes"]
    quantised = [n for n in nodes if n["op"] in {"_contrib_quantize_v2", "_sg_mkldnn_conv"}]
    assert len(quantised) >= 3
    assert all("min_calib_range" in node["attrs"] for node in quantised)
    assert built.details["calibrated_tensors"] >= len(quantised)


def test_excluded_layers_stay_in_fp32(tiny: Tiny, tmp_path: Path, out: Path) -> None:
    source = write_mxnet(tiny, tmp_path)
    assert MxnetConverter.layers(source, settings()) == ("conv", "fc")
    MxnetConverter.build(source, out, settings(exclude=("conv",)), Drawn())
    with isolated("mxnet", str(NAMED)).open(out, INT8) as session:
        assert session.ran.details["heavy_kernels_by_precision"] == {"fp32": 1, "int8": 1}
        assert session.ran.precision_ran == "int8 (1 of 2 kernels; 1 fp32)"
    with pytest.raises(InputError, match="built in int8, but fp32"):
        isolated("mxnet", str(NAMED)).open(out, SessionOptions(threads=1, image=INT8.image))


def test_images_that_overflow_are_refused(tiny: Tiny, tmp_path: Path, out: Path) -> None:
    class Broken(Drawn):
        def __getitem__(self, index: int) -> NDArray[np.float32]:  # type: ignore[override]
            return super().__getitem__(index) * np.float32(np.inf)

    with pytest.raises(InputError, match="no finite range"):
        MxnetConverter.build(write_mxnet(tiny, tmp_path), out, settings(), Broken())
