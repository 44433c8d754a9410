"""The verdict of a gate as log, annotations, JSON, JUnit XML and Markdown."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from evalkit.core.errors import InputError
from evalkit.core.files import atomic_write
from evalkit.report.junit import junit
from evalkit.report.markdown import TITLES, figure, markdown
from evalkit.report.table import text_table
from evalkit.tasks import title_of
from evalkit.verdict.gate import Check, Verdict


def publish(
    verdict: Verdict,
    say: Callable[[str], object],
    *,
    output: Path | None = None,
    junit_file: Path | None = None,
    markdown_file: Path | None = None,
) -> None:
    """Print a verdict and write it into the named files.

    Parameters
    ----------
    verdict : Verdict
    say : callable
        Prints a line into the log.
    output, junit_file, markdown_file : Path, optional
        Files to write.

    Notes
    -----
    The Markdown is also appended to the file that ``GITHUB_STEP_SUMMARY`` names, and where
    ``GITHUB_ACTIONS`` is ``true`` whatever did not pass becomes an annotation.
    """
    say(describe(verdict))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in workflow_commands("evalkit gate", verdict.checks):
            say(line)
    if output is not None:
        _write(output, verdict.model_dump_json(indent=2).encode() + b"\n")
    if junit_file is not None:
        _write(junit_file, junit(verdict))
    if markdown_file is not None:
        _write(markdown_file, _utf8(markdown(verdict)))
    append_summary(markdown(verdict))


def describe(verdict: Verdict) -> str:
    """Lay a verdict out for the terminal."""
    rows = [
        [
            TITLES[check.outcome],
            printable(check.name),
            *(figure(value) for value in (check.baseline, check.candidate, check.limit)),
        ]
        for check in verdict.checks
    ]
    table = text_table(["outcome", "check", "baseline", "candidate", "limit"], rows, left=2)
    why = [
        f"{TITLES[check.outcome]}: {printable(check.name)}: {printable(check.message)}"
        for check in verdict.checks
        if check.outcome != "pass"
    ]
    head = [
        f"{title_of(verdict.task)} on {printable(verdict.dataset)}; figures are error rates",
        f"baseline   {printable(verdict.baseline)}",
        f"candidate  {printable(verdict.candidate)}",
    ]
    parts = ["\n".join(head), table, "\n".join(why), f"gate: {TITLES[verdict.outcome]}"]
    return "\n\n".join(part for part in parts if part)


def append_summary(text: str) -> None:
    """Append Markdown to the file that ``GITHUB_STEP_SUMMARY`` names, if it names one.

    Raises
    ------
    evalkit.core.errors.InputError
        It cannot be written.
    """
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        _append(Path(summary), _utf8(text + "\n"))


def workflow_commands(title: str, checks: Sequence[Check]) -> list[str]:
    """Return GitHub's workflow commands for every check that did not pass.

    The escapes are those of the toolkit's ``command.ts``: a message or a title cannot start
    another command.
    """
    levels = {"fail": "error", "cannot_judge": "error", "skipped": "notice"}
    return [
        f"::{levels[check.outcome]} title={_property(f'{title}: {check.name}')}::"
        f"{_data(check.message)}"
        for check in checks
        if check.outcome in levels
    ]


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def printable(text: str) -> str:
    """Keep a text to one line without control characters: the log is read by machines too."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def _append(path: Path, content: bytes) -> None:
    try:
        with path.open("ab") as file:
            file.write(content)
    except OSError as error:
        raise InputError(
            f"Cannot append to {path} ({error.strerror}), which GITHUB_STEP_SUMMARY names."
        ) from error
