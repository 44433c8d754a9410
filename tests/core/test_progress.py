"""Progress: lines for logs, silence where asked."""

from __future__ import annotations

import io

import pytest

from evalkit.core import progress as module
from evalkit.core.progress import Progress


def test_a_log_gets_lines_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    with Progress(stream=stream).stage("scoring", 4000, "pairs", done=1000) as advance:
        advance(1000)
        advance(2000)
    assert stream.getvalue().splitlines() == [
        "scoring: 2,000/4,000 pairs (50%), 100/s, 0:20 left",
        "scoring: 4,000/4,000 pairs (100%), 150/s, 0:00 left",
    ]


def test_a_terminal_gets_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Progress(stream=stream).stage("decode", 3, "faces") as advance:
        advance(3)
    assert "decode: 100%" in stream.getvalue()
    assert "3/3" in stream.getvalue()


def test_quiet_is_silent() -> None:
    stream = io.StringIO()
    progress = Progress(quiet=True, stream=stream)
    progress.say("anything")
    with progress.stage("scoring", 3, "pairs") as advance:
        advance(3)
    assert stream.getvalue() == ""
