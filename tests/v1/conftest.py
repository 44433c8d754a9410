"""A copy of the files of version 0.1, and what that version said of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from v1_files import FILES


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the files and go there: paths in them are relative."""
    folder = shutil.copytree(FILES, tmp_path / "files")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    for name in ("EVALKIT_DATA", "GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture(scope="session")
def expected() -> dict[str, Any]:
    """What version 0.1 said."""
    told: dict[str, Any] = json.loads((FILES / "expected.json").read_text(encoding="utf-8"))
    return told
