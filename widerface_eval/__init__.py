"""The WIDER FACE evaluator, usable on its own: `python -m evalkit.widerface_eval`."""

from evalkit.widerface_eval.breakdown import HEIGHT_BANDS, Slice, by_event, by_height
from evalkit.widerface_eval.errors import IncompleteError, WiderFaceError
from evalkit.widerface_eval.evaluation import (
    RULES,
    Curve,
    Evaluation,
    Rule,
    Settings,
    average_precision,
    curve_of,
    evaluate,
)
from evalkit.widerface_eval.ground_truth import read_ground_truth
from evalkit.widerface_eval.matching import FALSE, HIT, IGNORED, Matches, match_boxes
from evalkit.widerface_eval.predictions import Reading, read_predictions
from evalkit.widerface_eval.records import SUBSETS, Detections, GroundTruth
from evalkit.widerface_eval.writing import write_predictions

__all__ = [
    "FALSE",
    "HEIGHT_BANDS",
    "HIT",
    "IGNORED",
    "RULES",
    "SUBSETS",
    "Curve",
    "Detections",
    "Evaluation",
    "GroundTruth",
    "IncompleteError",
    "Matches",
    "Reading",
    "Rule",
    "Settings",
    "Slice",
    "WiderFaceError",
    "average_precision",
    "by_event",
    "by_height",
    "curve_of",
    "evaluate",
    "match_boxes",
    "read_ground_truth",
    "read_predictions",
    "write_predictions",
]
