"""A task of another package has every door: command, comparison, gate, sign-off, page."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import toy_task
import yaml
from command import Command

from evalkit.cli import commands
from evalkit.core.errors import InputError
from evalkit.core.results import load_result
from evalkit.datasets.lfw import load_bin
from evalkit.tasks import TASKS, task_of

pytest.importorskip("onnxruntime", reason="needs the cpu extra")
MODEL = ("--model", "sample-recognition")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install the toy as its own distribution, for this process and those that it starts."""
    site = tmp_path / "site"
    record = site / "toy-1.dist-info"
    record.mkdir(parents=True)
    shutil.copy(toy_task.__file__, site / "toy_task.py")
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1\n")
    (record / "entry_points.txt").write_text("[evalkit.tasks]\ntoy = toy_task:Toy\n")
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{root}:{site}")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    entries = dict(TASKS._entries)
    monkeypatch.setattr(TASKS, "_plugins_read", False)
    commands.cache_clear()
    yield site
    commands.cache_clear()
    TASKS._entries.clear()
    TASKS._entries.update(entries)
    TASKS._faults.clear()
    sys.modules.pop("toy_task", None)


def test_the_toy_is_short() -> None:
    assert len(Path(toy_task.__file__).read_text(encoding="utf-8").splitlines()) <= 60


def test_command_compare_gate_and_page(
    installed: Path,
    evalkit: Command,
    tiny_lfw: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    assert evalkit("toy", "--data", tiny_lfw, *MODEL, "--output", one) == 0
    assert "right" in capsys.readouterr().out
    result = load_result(one)
    with np.load(tmp_path / "one.scores.npz") as arrays:
        right = (arrays["similarity"] >= 0.3) == load_bin(tiny_lfw).issame
    assert result.metric("right").value == np.mean(right)
    assert evalkit("toy", "--data", tiny_lfw, *MODEL, "--output", two, "--mean", 100) == 0
    assert evalkit("compare", one, two, "--output", tmp_path / "c.json") == 0
    assert "95 % paired" in capsys.readouterr().out
    assert '"method": "Tango, pair-level"' in (tmp_path / "c.json").read_text()
    assert evalkit("gate", one, "--baseline", one) == 0
    page = tmp_path / "page.html"
    assert evalkit("report", one, two, "--baseline", one, "--out", page) == 0
    assert "right" in page.read_text(encoding="utf-8")


def test_another_threshold_is_another_rule(
    installed: Path, evalkit: Command, tiny_lfw: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    assert evalkit("toy", "--data", tiny_lfw, *MODEL, "--output", one) == 0
    assert evalkit("toy", "--data", tiny_lfw, *MODEL, "--threshold", 0.4, "--output", two) == 0
    assert evalkit("compare", one, two) == 3


@pytest.mark.slow
def test_sign_off(installed: Path, evalkit: Command, tiny_lfw: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the torch extra")
    protocol = {"kind": "toy", "data": str(tiny_lfw), "settings": {"threshold": 0.25}}
    plan = {
        "name": "toy",
        "models": {"recognition": "sample-recognition"},
        "protocols": [{**protocol, "primary": "right", "margin": {"points": 30}}],
        "matrix": {"backends": ["onnxruntime", "torch"]},
        "reference": "onnxruntime",
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    out = tmp_path / "out"
    assert evalkit("signoff", tmp_path / "plan.yaml", "--out", out) == 0
    assert "toy" in (out / "report.html").read_text(encoding="utf-8")
    result = load_result(out / "cells" / "toy" / "torch-fp32" / "result.json")
    assert (result.task, result.settings["threshold"]) == ("toy", 0.25)


def faulty(site: Path, old: str, new: str) -> None:
    """Put a fault into the installed toy."""
    text = (site / "toy_task.py").read_text(encoding="utf-8")
    assert old in text
    (site / "toy_task.py").write_text(text.replace(old, new, 1), encoding="utf-8")
    sys.modules.pop("toy_task", None)
    importlib.invalidate_caches()


@pytest.mark.parametrize(
    ("old", "method"),
    [
        ("        pairs = load_bin(self.root(settings, progress))\n", "open"),
        ("        rows, _ = embeddings(outputs, flip=False)\n", "evaluate"),
        (
            "        rows = [(m.name, percent(m.value), interval(m)) for m in result.metrics]\n",
            "summary",
        ),
    ],
)
def test_an_exception_is_the_fault_of_its_package(
    installed: Path,
    evalkit: Command,
    tiny_lfw: Path,
    capsys: pytest.CaptureFixture[str],
    old: str,
    method: str,
) -> None:
    faulty(installed, old, f"        1 / 0\n{old}")
    assert evalkit("toy", "--data", tiny_lfw, *MODEL) == 2
    shown = capsys.readouterr().err
    assert f"The task 'toy' of toy (toy_task:Toy) failed in its method {method}: Zero" in shown
    assert "toy_task.py, line" in shown
    assert "Traceback" not in shown


def test_errors_of_files_stay_what_they_are(
    installed: Path, evalkit: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.bin").write_bytes(b"no pickle")
    assert evalkit("toy", "--data", tmp_path / "broken.bin", *MODEL) == 2
    assert "no part of evalkit" not in capsys.readouterr().err


def test_a_task_without_a_method_is_refused(
    installed: Path, evalkit: Command, tiny_lfw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty(installed, "    def primaries(", "    def primary(")
    assert evalkit("toy", "--data", tiny_lfw, *MODEL) == 2
    assert "The task 'toy' of toy (toy_task:Toy) has no primaries" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["toy_task:Absent", "toy_task", "toy_task:Table"])
def test_a_wrong_entry_point_leaves_calibration_alone(
    installed: Path, tiny_lfw: Path, target: str
) -> None:
    (installed / "toy-1.dist-info" / "entry_points.txt").write_text(
        f"[evalkit.tasks]\ntoy = {target}\n"
    )
    with pytest.raises(InputError, match="toy"):
        TASKS.get("toy")
    task = task_of(tiny_lfw)
    assert task is not None
    assert task.name == "lfw"
