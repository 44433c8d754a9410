"""Evidence of IJB: comparisons of templates, whose subjects are drawn."""

from __future__ import annotations

from collections.abc import Mapping

from evalkit.core.results import Result
from evalkit.stats.comparisons import SubjectComparisons
from evalkit.stats.evidence import Array, damaged, required


def read(arrays: Mapping[str, Array], result: Result) -> dict[str, SubjectComparisons]:
    """Make evidence of the arrays beside a result; it has one view.

    Raises
    ------
    evalkit.core.errors.InputError
        An array is missing, or the arrays do not fit together.
    """
    names = ("scores", "genuine", "pairs", "template_id", "subject_id")
    scores, genuine, pairs, template_id, subject_id = required(arrays, *names)
    rates = (m for m in result.metrics if m.figure == "tar" and m.rule == "at_most")
    targets = [metric.at.get("target") for metric in rates]
    known = [target for target in targets if target is not None]
    try:
        return {"": SubjectComparisons(scores, genuine, pairs, template_id, subject_id, known)}
    except ValueError as error:
        raise damaged(error) from error
