"""A tiny sample, a cache of its own, and a way to run the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Command

from evalkit.cli import main
from evalkit.datasets.sample import write_sample


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("EVALKIT_CACHE", str(cache))
    monkeypatch.delenv("EVALKIT_DATA", raising=False)
    return cache


@pytest.fixture(scope="session")
def tiny_ijbc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample("ijbc", tmp_path_factory.mktemp("sample") / "IJBC", size="tiny")


@pytest.fixture(scope="session")
def tiny_ijbb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample("ijbb", tmp_path_factory.mktemp("sample") / "IJBB", size="tiny")


@pytest.fixture(scope="session")
def tiny_lfw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample("lfw", tmp_path_factory.mktemp("sample") / "lfw", size="tiny")


@pytest.fixture(scope="session")
def tiny_wider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample("widerface", tmp_path_factory.mktemp("sample") / "wider", size="tiny")


@pytest.fixture
def evalkit() -> Command:
    def run(*words: object) -> int:
        return main([str(word) for word in words])

    return run
