"""The tables of ``evalkit backends``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from evalkit.backends.base import Ran
from evalkit.convert.doctor import Checkup, Comparison, Listed
from evalkit.report.table import text_table
from evalkit.report.verdict import printable
from evalkit.stats.drift import RTOL


def describe_backends(backends: Sequence[Listed]) -> str:
    """Lay the backends out for the terminal, then what is missing and how to get it."""
    header = ["backend", "here", "version", "devices", "precisions", "tested on"]
    rows = [
        [
            listed.name,
            "yes" if listed.probe.available else "no",
            listed.probe.version or "-",
            ", ".join(listed.probe.devices) or "-",
            ", ".join(listed.probe.precisions) or "-",
            {None: "unknown", "": "nothing yet"}.get(listed.tested_on, listed.tested_on or ""),
        ]
        for listed in backends
    ]
    missing = [
        f"{listed.name}: {printable(listed.probe.reason)} {printable(listed.probe.remedy)}".rstrip()
        for listed in backends
        if not listed.probe.available
    ]
    legend = "tested on: the kinds of device that evalkit's own tests of the backend have run on."
    return "\n\n".join([text_table(header, rows, left=6), legend, *missing])


def backends_json(backends: Sequence[Listed]) -> list[dict[str, Any]]:
    """Return the same as JSON values."""
    return [
        {"name": listed.name, **asdict(listed.probe), "tested_on": listed.tested_on}
        | {"origin": listed.origin}
        for listed in backends
    ]


def describe_checkup(checkup: Checkup) -> str:
    """Lay a check out for the terminal."""
    parts = [f"{printable(checkup.model)}\n{_opened('checked', checkup.file, checkup.ran)}"]
    if checkup.reference is not None:
        parts[0] += "\n" + _opened("reference", checkup.reference_file, checkup.reference)
    parts += [f"note: {printable(note)}" for note in checkup.ran.notes]
    if checkup.comparisons:
        parts.append(_table(checkup.comparisons))
        parts.append(
            f"real images: {printable(checkup.real)}; cosines of an image's whole output; atol: "
            f"what numpy.testing.assert_allclose needs beside rtol {RTOL:g}."
        )
    parts.append(_verdict(checkup))
    return "\n\n".join(parts)


def _opened(role: str, file: str, ran: Ran) -> str:
    threads = f", {ran.threads} threads" if ran.threads else ""
    return (
        f"{role:<10} {ran.backend} {ran.version}, {ran.device}, {ran.precision_requested} "
        f"(ran: {ran.precision_ran}){threads}: {printable(file)}"
    )


def _table(comparisons: Sequence[Comparison]) -> str:
    header = ["images", "output", "n", "cosine min", "p1", "p50", "bound"]
    header += ["max |difference|", "max relative", "atol", ""]
    return text_table(header, [_row(comparison) for comparison in comparisons], left=2)


def _row(comparison: Comparison) -> list[str]:
    drift = comparison.drift
    usable = drift.cosines[np.isfinite(drift.cosines)]
    quantiles = np.percentile(usable, [0, 1, 50]).tolist() if len(usable) else [np.nan] * 3
    changed = [f"{drift.lost} not finite"] if drift.lost else []
    changed += [f"{drift.gained} finite only here"] if drift.gained else []
    verdict = "agrees" if comparison.agrees else ", ".join(["DIFFERS", *changed])
    return [
        comparison.images,
        printable(comparison.output),
        str(len(drift.cosines)),
        *(f"{value:.6f}" for value in quantiles),
        "-" if comparison.least_cosine is None else f"{comparison.least_cosine:g}",
        f"{drift.largest_absolute:.2e}",
        f"{drift.largest_relative:.2e}",
        f"{drift.atol_needed:.2e}",
        verdict if comparison.least_cosine is not None or not comparison.agrees else "not judged",
    ]


def _verdict(checkup: Checkup) -> str:
    if checkup.reference is None:
        why = "\n".join(f"  {printable(refusal)}" for refusal in checkup.refusals)
        return (
            "It opens and runs, but no other backend here opens this model to compare with. Name "
            f"its file for another backend under 'files' of a model YAML.\n{why}"
        )
    if checkup.agrees:
        return f"{checkup.ran.backend} agrees with {checkup.reference.backend}."
    return (
        f"{checkup.ran.backend} DIFFERS from {checkup.reference.backend} by more than the bound. "
        "Do not trust figures of this model on it."
    )
