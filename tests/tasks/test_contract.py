"""Every registered task keeps the contract of tasks."""

from __future__ import annotations

import argparse
import csv
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest import SkipTest

import numpy as np
import pytest

from evalkit.cli.options import add_run_options, resolve
from evalkit.core.option import options_of
from evalkit.core.settings import RunSettings
from evalkit.datasets.ijb import load_ijb
from evalkit.datasets.lfw import load_bin
from evalkit.tasks import TASKS
from evalkit.tasks.ijb.task import Ijbb, Ijbc
from evalkit.tasks.lfw.task import Lfw
from evalkit.tasks.pairs.task import Pairs
from evalkit.tasks.widerface.task import WiderFaceTask
from evalkit.testing import TaskContract

pytest.importorskip("onnxruntime", reason="needs the cpu extra")
MODEL = "sample-recognition"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("contract")


def broken_rows(path: Path, rows: int) -> Path:
    """Write embeddings, three of which have no direction."""
    embeddings = np.random.default_rng(0).normal(size=(rows, 8))
    embeddings[[1, 4, 9]] = 0
    np.save(path, embeddings)
    return path


class TestIjbc(TaskContract):
    task = Ijbc

    @pytest.fixture(autouse=True)
    def of_the_sample(self, tiny_ijbc: Path, folder: Path) -> None:
        file = broken_rows(folder / "ijbc.npy", len(load_ijb(tiny_ijbc, "IJBC").images))
        self.settings = {"data": tiny_ijbc, "model": MODEL, "far": (0.01, 0.1)}
        self.limited = {"limit": 60}
        self.failing = {"features": file}


class TestIjbb(TaskContract):
    task = Ijbb

    @pytest.fixture(autouse=True)
    def of_the_sample(self, tiny_ijbb: Path, folder: Path) -> None:
        file = broken_rows(folder / "ijbb.npy", len(load_ijb(tiny_ijbb, "IJBB").images))
        self.settings = {"data": tiny_ijbb, "model": MODEL, "far": (0.1,), "one_to_n": True}
        self.limited = {"limit": 60}
        self.failing = {"features": file}


class TestLfw(TaskContract):
    task = Lfw

    @pytest.fixture(autouse=True)
    def of_the_sample(self, tiny_lfw: Path, folder: Path) -> None:
        file = broken_rows(folder / "lfw.npy", 2 * len(load_bin(tiny_lfw)))
        self.settings = {"data": tiny_lfw, "model": MODEL, "far": (0.1,)}
        self.failing = {"embeddings": file, "max_failures": 3}


class TestPairs(TaskContract):
    task = Pairs

    @pytest.fixture(autouse=True)
    def of_the_sample(self, tiny_lfw: Path, folder: Path) -> None:
        table = folder / "pairs.csv"
        if not table.exists():
            pairs = load_bin(tiny_lfw)
            for index, image in enumerate(pairs.images):
                (folder / f"{index}.png").write_bytes(image)
            rows = [
                (f"{2 * at}.png", f"{2 * at + 1}.png", int(same))
                for at, same in enumerate(pairs.issame)
            ]
            write(table, [("path1", "path2", "same"), *rows])
        self.settings = {"data": table, "model": MODEL, "fmr": (0.1,)}
        self.failing = {"data": None, "scores": scores(folder / "scores.csv", failed=2)}

    def test_a_page_without_charts_breaks_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Pairs, "panels", lambda task, runs: ())
        with pytest.raises(AssertionError, match="no curve"):
            self.test_panels_are_plain_data()


class TestWiderFace(TaskContract):
    task = WiderFaceTask
    limited: ClassVar[Mapping[str, Any]] = {"limit": 3}

    @pytest.fixture(autouse=True)
    def of_the_sample(self, tiny_wider: Path, folder: Path) -> None:
        broken = folder / "wider"
        if not broken.exists():
            shutil.copytree(tiny_wider, broken)
            image = sorted(broken.rglob("*.jpg"))[0]
            image.write_bytes(image.read_bytes()[:200])
        self.settings = {"data": tiny_wider, "model": "sample-detection"}
        self.failing = {"data": broken}


def scores(path: Path, *, failed: int) -> Path:
    """Write scores of 60 pairs of 30 people; some have none."""
    rng = np.random.default_rng(0)
    rows = []
    for row in range(60):
        score = "nan" if row < failed else f"{rng.normal(0.5 * (row % 2)):.6f}"
        first, second = row // 2, row // 2 if row % 2 else (row // 2 + 1) % 30
        rows.append((score, row % 2, f"p{first}", f"p{second}"))
    return write(path, [("score", "same", "subject1", "subject2"), *rows])


def write(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.mark.parametrize("name", ["test_failures_are_named", "test_images_are_counted"])
def test_what_has_no_data_is_skipped_with_a_reason(name: str) -> None:
    class Bare(TaskContract):
        task = Pairs
        settings: ClassVar[Mapping[str, Any]] = {}

    with pytest.raises(SkipTest, match=r"set '(failing|data)'"):
        getattr(Bare(), name)()


def test_every_task_is_here() -> None:
    contracts = [TestIjbb, TestIjbc, TestLfw, TestPairs, TestWiderFace]
    assert {contract.task.name for contract in contracts} == set(TASKS)


@pytest.mark.parametrize("name", TASKS.names())
def test_settings_are_the_same_from_the_command_line(name: str) -> None:
    kind = TASKS.get(name).Settings
    parser = argparse.ArgumentParser()
    add_run_options(parser, kind)
    settings = kind(limit=7, model="m.onnx", mean=(1.0, 2.0, 3.0), verify="all", threads=2)
    words = []
    for field, value in settings.model_dump(exclude_defaults=True).items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words += [options_of(kind)[field].name_of(field), text]
    assert resolve(parser.parse_args(words), kind) == settings
    assert isinstance(settings, RunSettings)
