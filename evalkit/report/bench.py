"""The table of ``evalkit bench``."""

from __future__ import annotations

from evalkit.bench import BenchResult, Timing
from evalkit.report.table import text_table
from evalkit.report.verdict import printable

HEADER = (
    "backend", "asked", "ran", "batch", "threads",
    "images/s", "spread", "p50 ms", "p90", "p99", "memory MiB", "model MiB",
)  # fmt: skip
_ENOUGH_FOR_P99 = 100


def describe(result: BenchResult) -> str:
    """Lay a benchmark out for the terminal: what ran, what could not and why."""
    rounds = f"rounds: {result.repeats} of {result.seconds:g} s each; the configurations take turns"
    machine = f"{result.environment.get('cpu')}, {result.environment.get('cores')} cores"
    parts = [f"{printable(result.model)}, {rounds}\n{machine}"]
    timed = [timing for timing in result.timings if timing.problem is None]
    if timed:
        parts.append(text_table(HEADER, [row(timing) for timing in timed], left=3))
        parts.append(_legend(timed))
    problems: dict[str, list[Timing]] = {}
    for timing in result.timings:
        if timing.problem is not None:
            problems.setdefault(timing.problem, []).append(timing)
    parts += [
        f"cannot run {_names(timings)}:\n  {printable(problem)}"
        for problem, timings in problems.items()
    ]
    return "\n\n".join(parts)


def row(timing: Timing) -> list[str]:
    """Return the texts under `HEADER` of a configuration that ran."""
    rate, latency, ran = timing.images_per_second, timing.latency_ms, timing.ran
    if rate is None or latency is None or ran is None:
        raise AssertionError("a configuration without a problem has figures")
    return [
        timing.backend,
        timing.precision,
        ran.precision_ran,
        str(timing.batch_size),
        "-" if ran.threads is None else str(ran.threads),
        f"{rate.median:,.1f}",
        f"{rate.low:,.1f}..{rate.high:,.1f}",
        f"{latency.p50:,.2f}",
        f"{latency.p90:,.2f}",
        f"{latency.p99:,.2f}" + ("*" if timing.runs < _ENOUGH_FOR_P99 else ""),
        _megabytes(timing.memory_mb),
        _megabytes(timing.model_mb),
    ]


def _legend(timed: list[Timing]) -> str:
    lines = [
        "images/s: median of the rounds, and their lowest and highest; latency: of one run of the "
        "batch.",
        "memory: growth of the peak since before the model was opened, without the runtime's "
        "library.",
    ]
    if any(timing.runs < _ENOUGH_FOR_P99 for timing in timed):
        lines.append(
            f"*: of fewer than {_ENOUGH_FOR_P99} runs, so it is close to the slowest run; give "
            "more --seconds or --repeats."
        )
    notes = dict.fromkeys(
        f"note: {timing.backend} {timing.precision}: {printable(note)}"
        for timing in timed
        if timing.ran is not None
        for note in timing.ran.notes
    )
    return "\n".join([*lines, *notes])


def _names(timings: list[Timing]) -> str:
    """Name configurations, their batch sizes together."""
    batches: dict[str, set[int]] = {}
    for timing in timings:
        device = "" if timing.device == "cpu" else f" on {timing.device}"
        name = f"{timing.backend} {timing.precision}{device}"
        batches.setdefault(name, set()).add(timing.batch_size)
    return "; ".join(
        f"{name} (batch {', '.join(map(str, sorted(sizes)))})" for name, sizes in batches.items()
    )


def _megabytes(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
