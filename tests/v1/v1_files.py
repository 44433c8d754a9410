"""What the present code says of files, in the form of ``expected.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli import main
from evalkit.core.results import load_result

FILES = Path(__file__).parent / "files"


def run(*words: object) -> int:
    """Run a command."""
    return main([str(word) for word in words])


def written(file: str) -> Any:
    """Read the JSON file that a command wrote."""
    return json.loads(Path(file).read_text(encoding="utf-8"))


def figures(file: str) -> dict[str, list[float | None]]:
    """Return value and bounds of each metric of a result."""
    told: dict[str, list[float | None]] = {}
    for metric in load_result(Path(file)).metrics:
        interval = metric.interval
        told[metric.name] = [metric.value, *([interval.low, interval.high] if interval else [])]
    return told


def same(value: Any) -> Any:
    """Return what equals a value up to the last digits of its floats, at any depth."""
    if isinstance(value, dict):
        return {name: same(part) for name, part in value.items()}
    if isinstance(value, list):
        return [same(part) for part in value]
    return pytest.approx(value, rel=1e-6, abs=1e-9) if isinstance(value, float) else value
