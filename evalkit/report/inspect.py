"""What a verification set holds, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from evalkit.datasets.lfw import BinSummary
from evalkit.report.table import text_table

_SHOWN = 10


def describe(summary: BinSummary) -> str:
    """Lay out what `evalkit.datasets.lfw.inspect_bin` found."""
    sizes = ", ".join(f"{width}x{height}: {n:,}" for (width, height), n in summary.sizes.items())
    formats = ", ".join(f"{name}: {count:,}" for name, count in summary.formats.items())
    lines = [
        f"{summary.path} ({summary.file_bytes / 1e6:.1f} MB)",
        f"sha256      {summary.sha256}",
        f"pairs       {summary.pairs:,}: {summary.same:,} same, {summary.different:,} different",
        f"images      {2 * summary.pairs:,}, {summary.distinct_images:,} distinct",
        f"sizes       {sizes or '-'}",
        f"formats     {formats or '-'}",
        f"identical   {_listed(summary.identical_pairs)}",
        f"repeated    {_listed(summary.repeated_pairs)}",
        f"undecodable {len(summary.undecodable)}",
    ]
    lines += [
        f"  pair {index // 2} {('first', 'second')[index % 2]}: {why}"
        for index, why in summary.undecodable[:_SHOWN]
    ]
    folds = [
        [str(fold), str(pairs), str(same), str(pairs - same)]
        for fold, (pairs, same) in enumerate(
            zip(summary.fold_pairs, summary.fold_same, strict=True), start=1
        )
    ]
    table = text_table(["fold", "pairs", "same", "different"], folds)
    warnings = [f"warning: {warning}" for warning in summary.warnings]
    return "\n".join([*lines, "", table, *warnings])


def _listed(pairs: Sequence[int]) -> str:
    if not pairs:
        return "0 pairs"
    named = ", ".join(map(str, pairs[:_SHOWN])) + (", ..." if len(pairs) > _SHOWN else "")
    return f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''}: {named}"
