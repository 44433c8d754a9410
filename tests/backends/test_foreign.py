"""Backends of other packages: what they raise is their fault, here and in workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from evalkit.backends import BACKENDS
from evalkit.backends.base import Backend, Probe, Ran, Session, SessionOptions, TensorInfo
from evalkit.cli import main
from evalkit.core.errors import InputError, UnavailableError
from evalkit.core.registry import Entry

OPTIONS = SessionOptions()


class AcmeSession(Session):
    """Gives zeros, or does what its backend is told to."""

    inputs = (TensorInfo("x", "float32", ("n", 3, 112, 112)),)
    outputs = (TensorInfo("y", "float32", ("n", 4)),)
    ran = Ran("acme", "1", "npu", "fp32", "unknown", None)

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        Acme.fail("run")
        self.ran = Ran("acme", "1", "npu", "fp32", "fp16", None)
        if Acme.fails == "kind":
            return None  # type: ignore[return-value]
        return {"y": np.ones((len(batch), 4), np.float32)}

    def close(self) -> None:
        Acme.fail("close")


class Acme(Backend):
    name = "acme"
    fails: ClassVar[str] = ""
    error: ClassVar[BaseException] = OSError("the board is on fire")

    @classmethod
    def fail(cls, step: str) -> None:
        if cls.fails == step:
            raise cls.error

    @classmethod
    def probe(cls) -> Probe:
        cls.fail("probe")
        return Probe(True, "1", ("npu",), ("fp32",))

    @classmethod
    def open(cls, model: Path, options: SessionOptions) -> Session:
        cls.fail("open")
        return AcmeSession()


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry(f"{__name__}:Acme", origin="acme-evalkit")
    monkeypatch.setitem(BACKENDS._entries, "acme", entry)
    monkeypatch.setattr(Acme, "fails", "")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "m.bin").write_bytes(b"m")
    return tmp_path / "m.bin"


def test_what_works_is_passed_through(model: Path) -> None:
    backend = BACKENDS.get("acme")
    assert backend.name == "acme"
    assert backend.probe() == Acme.probe()
    with backend.open(model, OPTIONS) as session:
        assert (session.inputs, session.outputs) == (AcmeSession.inputs, AcmeSession.outputs)
        assert session.ran.precision_ran == "unknown"
        outputs = session.run(np.zeros((2, 3, 112, 112), np.float32))
        assert outputs["y"].shape == (2, 4)
        assert session.ran.precision_ran == "fp16", "what is known only after a run"


@pytest.mark.parametrize("error", [OSError("on fire"), SystemExit("no licence"), KeyError("k")])
@pytest.mark.parametrize("step", ["probe", "open", "run", "close"])
def test_each_step_names_the_package(
    monkeypatch: pytest.MonkeyPatch, model: Path, step: str, error: BaseException
) -> None:
    monkeypatch.setattr(Acme, "fails", step)
    monkeypatch.setattr(Acme, "error", error)
    backend = BACKENDS.get("acme")
    probe = backend.probe()
    told = probe.reason
    assert probe.available == (step != "probe")
    if step != "probe":
        with pytest.raises(UnavailableError) as raised, backend.open(model, OPTIONS) as session:
            session.run(np.zeros((2, 3, 112, 112), np.float32))
        told = str(raised.value)
    assert f"'acme' of acme-evalkit ({__name__}:Acme) failed while it" in told
    assert f"{type(error).__name__}: {error}" in told
    assert f"{Path(__file__)}, line " in told


def test_errors_of_evalkit_and_interruptions_stay_what_they_are(
    monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    monkeypatch.setattr(Acme, "fails", "open")
    for error in (InputError("no such layer"), KeyboardInterrupt()):
        monkeypatch.setattr(Acme, "error", error)
        with pytest.raises(type(error)) as raised:
            BACKENDS.get("acme").open(model, OPTIONS)
        assert raised.value is error


@pytest.mark.parametrize("step", ["probe", "open", "run", "close", "kind"])
def test_a_check_ends_as_the_users_error(
    monkeypatch: pytest.MonkeyPatch, model: Path, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    monkeypatch.setattr(Acme, "fails", step)
    assert main(["backends", "--check", "acme", "--model", str(model), "--device", "npu"]) == 2
    told = capsys.readouterr().err
    assert "acme-evalkit" in told
    assert "fault of evalkit" not in told
    assert ("returned a NoneType instead of a dict" in told) == (step == "kind")


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """Put a distribution onto PYTHONPATH whose backend fails on import, and one that works."""
    (tmp_path / "down.py").write_text("raise RuntimeError('licence server down')")
    (tmp_path / "fine.py").write_text(
        "from evalkit.backends.base import Backend, Probe\n"
        "class Fine(Backend):\n"
        "    name = 'fine'\n"
        "    def probe(): return Probe(True, '7', ('npu',), ('fp32',))\n"
        "    def open(model, options): raise AssertionError\n"
    )
    info = tmp_path / "acme_boards-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-boards\nVersion: 1\n")
    points = "[evalkit.backends]\ndown = down:Down\nfine = fine:Fine\n"
    (info / "entry_points.txt").write_text(points)
    return {**os.environ, "PYTHONPATH": str(tmp_path), "EVALKIT_CACHE": str(tmp_path)}


def evalkit(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "evalkit", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_evaluation_of_an_installed_one_ends_as_the_users_error(
    installed: dict[str, str], model: Path
) -> None:
    done = evalkit(installed, "lfw", "--limit", "8", "--backend", "down", "--model", str(model))
    assert done.returncode == 2
    assert "'down' of acme-boards (down:Down) failed on import: RuntimeError" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_list_agrees_with_runs(installed: dict[str, str]) -> None:
    """Workers of this interpreter find what it finds, by PYTHONPATH too."""
    done = evalkit(installed, "backends", "--json")
    listed = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert listed["fine"]["available"]
    assert listed["fine"]["version"] == "7"
    assert not listed["down"]["available"]
    assert "licence server down" in listed["down"]["reason"]
