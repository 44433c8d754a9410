"""Environments: found, refused, made and gone on with; pip itself is replaced."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from evalkit.backends import environments
from evalkit.backends.environments import ENVIRONMENTS, create, find_base, ready_interpreter, state
from evalkit.cli import main
from evalkit.core.errors import InputError, UnavailableError

PINS = ENVIRONMENTS["mxnet"]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Record the commands; making an environment makes its files."""
    ran: list[list[str]] = []

    def record(command: list[str], does: str) -> None:
        ran.append(command)
        if "venv" in command:
            folder = Path(command[-1])
            (folder / "bin").mkdir(parents=True)
            (folder / "bin" / "python").touch()
            (folder / "pyvenv.cfg").touch()

    monkeypatch.setattr(environments, "_run", record)
    monkeypatch.setattr(environments, "_loads", lambda library: True)
    monkeypatch.setattr(environments, "_version", lambda python: (3, 11))
    return ran


def test_an_environment_is_made_once(commands: list[list[str]], tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "mxnet"
    assert state("mxnet", folder) == "absent"
    said: list[str] = []
    python = create("mxnet", folder, say=said.append)
    assert python == folder / "bin" / "python"
    assert [command[0] for command in commands] == [sys.executable, str(python)]
    assert commands[1][-len(PINS.packages) :] == list(PINS.packages)
    assert state("mxnet", folder) == "ready"
    assert create("mxnet", folder, say=said.append) == python
    assert len(commands) == 2
    assert said[-1].endswith("ready already")


def test_an_interrupted_one_is_gone_on_with(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = environments._run

    def fails(command: list[str], does: str) -> None:
        if "pip" in command:
            raise UnavailableError("no network")
        record(command, does)

    with monkeypatch.context() as patch:
        patch.setattr(environments, "_run", fails)
        with pytest.raises(UnavailableError):
            create("mxnet", tmp_path / "e")
    assert state("mxnet", tmp_path / "e") == "incomplete"
    create("mxnet", tmp_path / "e")
    assert ["venv" in command for command in commands] == [True, False]
    assert state("mxnet", tmp_path / "e") == "ready"


def test_other_pins_are_installed_anew(commands: list[list[str]], tmp_path: Path) -> None:
    create("mxnet", tmp_path / "e")
    (tmp_path / "e" / "evalkit-environment.json").write_text('{"packages": ["mxnet==1.8"]}')
    assert state("mxnet", tmp_path / "e") == "incomplete"


def test_a_folder_of_something_else_is_left_alone(
    commands: list[list[str]], tmp_path: Path
) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to.txt").touch()
    with pytest.raises(InputError, match="letters holds something else"):
        create("mxnet", tmp_path / "letters")
    with pytest.raises(InputError, match="something else"):
        create("mxnet", tmp_path / "letters" / "to.txt")
    assert not commands


def test_missing_libraries_name_their_packages(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "_loads", lambda library: False)
    with pytest.raises(UnavailableError, match="apt-get install -y libquadmath0 libgomp1"):
        create("mxnet", tmp_path / "e")
    assert not commands


def test_a_fitting_python_is_found_or_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {sys.executable: (3, 13), "python3.10": (3, 10)}
    monkeypatch.setattr(environments, "_version", versions.get)
    assert find_base(PINS) == "python3.10"
    with pytest.raises(UnavailableError, match=r"not Python 3\.10 or 3\.11.*--base python3\.11"):
        find_base(PINS, sys.executable)
    del versions["python3.10"]
    with pytest.raises(UnavailableError, match="--base"):
        find_base(PINS)


def test_what_fails_is_told_with_its_last_lines() -> None:
    with pytest.raises(UnavailableError, match=r"Could not try(?s:.*)no such wheel"):
        environments._run(["sh", "-c", "echo no such wheel >&2; exit 3"], "try")


def test_only_a_finished_one_is_used(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    assert ready_interpreter("mxnet") is None
    assert ready_interpreter("torch") is None
    (tmp_path / "envs" / "mxnet").mkdir(parents=True)
    assert ready_interpreter("mxnet") is None
    python = create("mxnet", environments.folder_of("mxnet"))
    assert ready_interpreter("mxnet") == python


def test_the_command_lists_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    assert main(["env", "list"]) == 0
    out = capsys.readouterr().out
    assert "mxnet" in out
    assert "absent" in out
    assert str(tmp_path) in out
