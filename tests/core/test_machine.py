"""What a result says of its machine."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import evalkit
from evalkit.core import machine as environment


def test_a_package_that_is_not_there_by_this_name_has_no_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "opencv-python-headless":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    packages = environment.describe()["packages"]
    assert packages["opencv-python-headless"] is None
    assert packages["numpy"] == np.__version__


def test_the_commit_is_that_of_the_checkout() -> None:
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists() or Path(evalkit.__file__).parents[1] != checkout:
        pytest.skip("not the package of a git checkout")
    head = subprocess.check_output(["git", "-C", str(checkout), "rev-parse", "HEAD"], text=True)
    commit = environment.describe()["evalkit_commit"]
    assert commit.removesuffix("+changes") == head.strip()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux passes its peak on")
def test_peak_memory_is_not_that_of_the_process_that_started_this_one() -> None:
    start = (
        "import os, subprocess, sys\n"
        "ballast = bytearray(os.urandom(1 << 20)) * 400\n"
        "child = 'from evalkit.core.machine import peak_memory_mb; print(peak_memory_mb())'\n"
        # With a function to run first, the child starts as a copy of its parent.
        "code = [sys.executable, '-c', child]\n"
        "print(subprocess.check_output(code, text=True, preexec_fn=lambda: None))\n"
    )
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=True)
    assert 1 < json.loads(done.stdout) < 300


def test_peak_memory_grows_with_use() -> None:
    before = environment.peak_memory_mb()
    ballast = np.ones(64 << 17)
    assert environment.peak_memory_mb() >= ballast.nbytes / 2**20
    assert environment.peak_memory_mb() >= before
