"""The tiny network and its files."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_network import Tiny


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    return Tiny.random()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")
