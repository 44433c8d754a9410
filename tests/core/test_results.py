"""The result: round trip, atomic writing, foreign files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.core.errors import InputError
from evalkit.core.results import Interval, Metric, Result, load_result


def result(**changes: Any) -> Result:
    values: dict[str, Any] = {
        "evalkit_version": "0", "task": "ijbc", "status": "complete", "started": "now",
        "command": "evalkit ijbc",
        "dataset": {"name": "d", "sha256": "0", "content_sha256": None, "counts": {}, "path": "."},
        "model": {"name": "m", "file": None, "sha256": None, "preprocessing": {}},
        "ran": {
            "backend": "features", "version": "", "device": "", "precision_requested": "fp32",
            "precision_ran": "unknown", "threads": None, "batch_size": None, "details": {},
            "notes": (),
        },
        "settings": {}, "metrics": (), "failures_to_enrol": (), "stages": (),
        "wall_seconds": 1.0, "throughput": None, "peak_memory_mb": 1.0, "scores_file": None,
        "warnings": (), "environment": {},
    }  # fmt: skip
    return Result.model_validate({**values, **changes})


def test_round_trip_keeps_every_digit(tmp_path: Path) -> None:
    metric = Metric(
        name="tar@far=1e-04", figure="tar", value=1 / 3, rule="at_most", counts={"genuine": 2**40},
        interval=Interval(low=0.1, high=0.5, level=0.95, method="wilson"), at={"similarity": None},
    )  # fmt: skip
    saved = result(metrics=(metric,)).save(tmp_path / "r.json", {"scores": np.arange(3.0)})
    assert saved.scores_file == "r.scores.npz"
    held = load_result(tmp_path / "r.json")
    assert held == saved
    assert held.metric("tar@far=1e-04").value == 1 / 3
    with np.load(tmp_path / "r.scores.npz", allow_pickle=False) as scores:
        np.testing.assert_array_equal(scores["scores"], [0, 1, 2])
    with pytest.raises(KeyError):
        held.metric("tar@far=1e-05")


def test_scores_are_written_by_any_numpy_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, names = np.savez, []

    def savez(file: Any, *args: Any, **arrays: Any) -> None:  # as before NumPy 2.2
        names.extend(arrays)
        real(file, *args, **arrays)

    monkeypatch.setattr(np, "savez", savez)
    result().save(tmp_path / "r.json", {"scores": np.arange(3.0)})
    assert names == ["scores"]


def test_names_that_are_not_unicode_are_written_escaped(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfc.jpg")
    saved = result(failures_to_enrol=({"name": name, "reason": f"no {name}"},), command=name)
    saved.save(tmp_path / "r.json")
    assert load_result(tmp_path / "r.json") == saved
    assert saved.failures_to_enrol[0].name == "\\udcff\\udcfc.jpg"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "schema version None"),
        ('{"schema_version": 99}', "schema version 99; this evalkit reads 1"),
        ('{"schema_version": 1}', "not a result of evalkit: evalkit_version"),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_result(path)


def test_a_result_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(InputError, match="Cannot write"):
        result().save(tmp_path / "file" / "r.json")
    assert (tmp_path / "file").read_text() == "old"
