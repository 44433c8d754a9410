"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No test judges by time: a loaded machine is no fault.
settings.register_profile("evalkit")
settings.load_profile("evalkit")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data and models, which are not part of the project; skips where absent."""
    named = os.environ.get("EVALKIT_SHARED_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set EVALKIT_SHARED_DATA to its folder")
    return folder
