"""The frame of the command line: help at once, exit codes, errors without stack traces."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalkit import cli
from evalkit.cli import commands, main
from evalkit.core.errors import CannotJudgeError, InputError, UnavailableError
from evalkit.datasets.errors import DatasetError

SAMPLE = ["sample", "--kind", "lfw", "--out", "x"]
HEAVY = ("numpy", "cv2", "pydantic", "onnxruntime", "torch", "scipy", "yaml", "matplotlib")


@pytest.mark.parametrize(
    ("words", "needed"),
    [(["--help"], ()), (["ijbc", "--help"], ("pydantic",)), (["--version"], ())],
)
def test_help_imports_nothing_heavy(words: list[str], needed: tuple[str, ...]) -> None:
    heavy = [name for name in HEAVY if name not in needed]
    code = (
        "import sys, evalkit.cli as c\n"
        "try:\n    c.main(sys.argv[1:])\nexcept SystemExit as e:\n    assert e.code == 0, e.code\n"
        f"loaded = [m for m in {heavy!r} if m in sys.modules]\nassert not loaded, loaded\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "evalkit" in done.stdout


@pytest.mark.parametrize("command", commands())
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
    assert main(SAMPLE) == code
    shown = capsys.readouterr().err
    assert ("Traceback" in shown) == (code == 70)
    assert shown.splitlines()[-1].startswith("evalkit sample: ")


def test_a_request_to_end_is_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended(_: object) -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0

    monkeypatch.setattr("evalkit.cli.sample.run", ended)
    before = signal.getsignal(signal.SIGTERM)
    assert main(SAMPLE) == 130
    assert "the same command resumes" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("words", [[], ["ijbd"], ["sample", "--kind", "x"], ["ijbc", "--far", "a"]])
def test_wrong_use_exits_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 2


@pytest.mark.parametrize(
    ("words", "usage", "meant"),
    [
        (["lfw", "--modle", "m.onnx"], "evalkit lfw", " (did you mean --model?)"),
        ([*SAMPLE, "--sise=tiny"], "evalkit sample", " (did you mean --size?)"),
        (["lfw", "my.bin"], "evalkit lfw", ""),
        (["inspect", "my.bin", "--qqqq"], "evalkit inspect", ""),
        (["--verzion", "lfw"], "evalkit", " (did you mean --version?)"),
    ],
)
def test_an_unknown_option_shows_the_commands_own_usage(
    words: list[str], usage: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"usage: {usage} [-h]")
    last = shown.splitlines()[-1]
    assert last.endswith(meant or words[-1])


def run_with_output(
    to: int, code: str, *words: str, stderr: int = subprocess.PIPE
) -> tuple[int, str]:
    """Run a command line whose sample command is replaced; its exit code and messages."""
    start = (
        "import sys\nfrom evalkit.cli import main, sample\n"
        "from evalkit.core.errors import CannotJudgeError\n"
        f"def run(arguments):\n    {code}\nsample.run = run\nsys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", start, *(words or SAMPLE)]
    # Buffered, as a shell starts it: short output meets the pipe only when it is flushed.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, stdout=to, stderr=stderr, env=buffered, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def closed_pipe() -> Iterator[int]:
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("print('fine'); return 0", 0),
        ("print('a figure got worse'); return 1", 1),
        ("print('x' * 1_000_000); return 0", 141),
        ("print('x', flush=True); return 0", 141),
    ],
)
def test_a_closed_pipe_hides_no_failure(closed_pipe: int, code: str, wanted: int) -> None:
    assert run_with_output(closed_pipe, code) == (wanted, "")


def test_an_error_after_output_that_nobody_reads_keeps_its_code(closed_pipe: int) -> None:
    code = "print('so far'); raise CannotJudgeError('too few')"
    assert run_with_output(closed_pipe, code) == (3, "evalkit sample: too few\n")
    assert run_with_output(closed_pipe, code, stderr=closed_pipe)[0] == 3


def test_help_into_a_closed_pipe_says_nothing(closed_pipe: int) -> None:
    assert run_with_output(closed_pipe, "return 0", "--help") == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_into_a_full_disk_is_told() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        code, told = run_with_output(full, "print('fine'); return 0")
    finally:
        os.close(full)
    assert (code, told) == (2, "evalkit: cannot print the output: No space left on device\n")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        *((number, 2) for number in ("ENOENT", "EACCES", "EROFS", "ENOTDIR", "ENOSPC", "EISDIR")),
        *((number, 70) for number in ("EBADF", "EIO")),
    ],
)
def test_errors_of_the_operating_system(
    number: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    value = getattr(errno, number)

    def fails(_: object) -> int:
        raise OSError(value, os.strerror(value), "/of/the\nuser")

    monkeypatch.setattr("evalkit.cli.sample.run", fails)
    assert main(SAMPLE) == code
    shown = capsys.readouterr().err
    if code == 2:
        assert shown.startswith(
            f"evalkit sample: Cannot use '/of/the\\nuser': {os.strerror(value)}."
        )
        assert len(shown.splitlines()) == 1
    else:
        assert "Traceback" in shown


def test_a_cache_that_cannot_be_made_is_one_clear_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "evalkit", "ijbc"],
        env={**os.environ, "EVALKIT_CACHE": "/dev/null/x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "/dev/null/x" in done.stderr.splitlines()[-1]
    assert "Not a directory" in done.stderr.splitlines()[-1]


def test_the_parser_fills_only_the_chosen_command() -> None:
    parser = cli.build_parser("sample")
    assert parser.parse_args(SAMPLE).size == "default"
