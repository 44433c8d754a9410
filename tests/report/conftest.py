"""Results and a sign-off's record in a folder of the test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from page_results import make_record, pairs_result

from evalkit.verdict.signoff.record import Signoff


@pytest.fixture
def write_pairs(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, backend: str, precision: str, loss: float = 0.0, **other: Any) -> Path:
        path = tmp_path / f"{name}.json"
        pairs_result(path, backend, precision, loss, **other)
        return path

    return write


@pytest.fixture
def record(tmp_path: Path) -> Signoff:
    """A sign-off that one mode passes and another fails; its results lie in `tmp_path`."""
    return make_record(tmp_path)
