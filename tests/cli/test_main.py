"""The frame of the command line: help at once, exit codes, errors without stack traces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evalkit import cli
from evalkit.cli import COMMANDS, main
from evalkit.datasets.errors import DatasetError
from evalkit.errors import CannotJudgeError, InputError, UnavailableError

HEAVY = ("numpy", "cv2", "pydantic", "onnxruntime", "torch", "scipy", "yaml", "matplotlib")


@pytest.mark.parametrize("words", [["--help"], ["ijbc", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys, evalkit.cli as c\n"
        "try:\n    c.main(sys.argv[1:])\nexcept SystemExit as e:\n    assert e.code == 0, e.code\n"
        f"loaded = [m for m in {HEAVY!r} if m in sys.modules]\nassert not loaded, loaded\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "evalkit" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    assert "example" in shown
    assert f"evalkit {command}" in shown


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("mend it"), 2),
        (UnavailableError("mend it"), 2),
        (DatasetError("mend it"), 2),
        (CannotJudgeError("mend it"), 3),
        (KeyboardInterrupt(), 130),
        (RuntimeError("mend it"), 70),
    ],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(_: object) -> int:
        raise error

    monkeypatch.setattr("evalkit.cli.sample.run", fails)
    assert main(["sample", "--kind", "lfw", "--out", "x"]) == code
    shown = capsys.readouterr().err
    assert ("Traceback" in shown) == (code == 70)
    assert shown.splitlines()[-1].startswith("evalkit sample: ")


@pytest.mark.parametrize("words", [[], ["ijbd"], ["sample", "--kind", "x"], ["ijbc", "--far", "a"]])
def test_wrong_use_exits_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 2


def test_a_closed_pipe_is_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = f"{sys.executable} -m evalkit --help | head -c 1 && exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_the_parser_fills_only_the_chosen_command() -> None:
    parser = cli.build_parser("sample")
    assert parser.parse_args(["sample", "--kind", "lfw", "--out", "x"]).seed == 0
