"""The command `python -m evalkit.widerface_eval -p PREDICTIONS -g GROUND_TRUTH`."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalkit.widerface_eval import Evaluation, GroundTruth, Reading, Slice

_EPILOG = """\
examples:
  python -m evalkit.widerface_eval -p predictions/ -g ground_truth/
  python -m evalkit.widerface_eval -p predictions.npz -g ground_truth/ --rule matlab --json
  python -m evalkit.widerface_eval -p predictions/ -g ground_truth/ --event 22--Picnic --breakdown

exit codes: 0 the figures are printed; 2 an input is wrong; 3 predictions are missing, so there is
no figure; 70 a fault of this program.
"""


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    command = argparse.ArgumentParser(
        prog="python -m evalkit.widerface_eval",
        description="AP of face detections on WIDER FACE's Easy, Medium and Hard subsets.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_data(command)
    _add_rule(command)
    out = command.add_argument_group("output")
    out.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write the result as JSON to FILE; without FILE, print it instead of the lines",
    )
    out.add_argument(
        "--breakdown",
        action="store_true",
        help="also show AP and recall by event and by height of the face",
    )
    return command


def _add_data(command: argparse.ArgumentParser) -> None:
    data = command.add_argument_group("data")
    data.add_argument(
        "-p",
        "--pred",
        metavar="PREDICTIONS",
        required=True,
        type=Path,
        help="folder of event/image.txt, or one .json or .npz file",
    )
    data.add_argument(
        "-g",
        "--gt",
        metavar="GROUND_TRUTH",
        required=True,
        type=Path,
        help="folder of the .mat files, or of wider_face_val_bbx_gt.txt and the subsets' lists",
    )
    data.add_argument(
        "--event",
        metavar="EVENT",
        action="append",
        help="judge this event only (may be repeated); its scores are normalised within it",
    )
    data.add_argument(
        "--allow-missing",
        action="store_true",
        help="count images of missing, empty and malformed files as without detections, and warn",
    )


def _add_rule(command: argparse.ArgumentParser) -> None:
    rule = command.add_argument_group("rule")
    rule.add_argument(
        "--rule",
        choices=("python", "python_file_order", "matlab", "matlab_int"),
        default="python",
        help="rule of the figure (default: %(default)s, sorted by score)",
    )
    rule.add_argument("--iou", type=float, default=0.5, help="default: %(default)s")
    rule.add_argument(
        "--steps", type=int, default=1000, help="score thresholds (default: %(default)s)"
    )
    rule.add_argument("--threads", type=int, help="at most this many (default: all processors)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parser().parse_args(arguments)

    from evalkit.widerface_eval import WiderFaceError

    try:
        _run(options)
    except WiderFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except Exception:
        import traceback

        traceback.print_exc()
        return 70
    return 0


def _run(options: argparse.Namespace) -> None:
    from evalkit.widerface_eval import (
        Settings,
        by_event,
        by_height,
        evaluate,
        read_ground_truth,
        read_predictions,
    )
    from evalkit.widerface_eval.writing import replacing

    target = None if options.json in (None, "-") else Path(options.json)
    if target is not None:
        _check_writable(target)
    settings = Settings(options.rule, options.iou, options.steps)
    whole = read_ground_truth(options.gt)
    truth = whole.only(options.event) if options.event else whole
    reading = read_predictions(
        options.pred, truth.images, known=whole.images, allow_missing=options.allow_missing
    )
    evaluation = evaluate(truth, reading.detections, settings, threads=options.threads)
    for warning in (*reading.warnings(), *evaluation.warnings):
        print(f"warning: {warning}", file=sys.stderr)
    slices = (*by_height(evaluation), *by_event(evaluation)) if options.breakdown else ()
    content = json.dumps(_content(evaluation, reading, truth, options, slices), indent=2)
    if options.json == "-":
        print(content)
        return
    if target is not None:
        with _naming(target), replacing(target) as file:
            file.write_text(content + "\n", "utf-8")
    print(_lines(evaluation, slices))


def _lines(evaluation: Evaluation, slices: Sequence[Slice]) -> str:
    """Lay out the lines that other people's scripts parse, with all digits."""
    title = " Results ".center(49, "=")
    lines = [f"{name.capitalize():<6} Val AP: {ap}" for name, ap in evaluation.ap.items()]
    table = [
        f"{part.subset:<6} {part.name:<28} faces {int(part.curve.faces):>6} "
        f"AP {part.curve.ap:.4f} recall {part.curve.recall[-1]:.4f}"
        for part in slices
    ]
    return "\n".join([title, *lines, "=" * 49, *table])


def _content(
    evaluation: Evaluation,
    reading: Reading,
    truth: GroundTruth,
    options: argparse.Namespace,
    slices: Sequence[Slice],
) -> dict[str, Any]:
    content = evaluation.as_dict()
    content["warnings"] = [*reading.warnings(), *content["warnings"]]
    content["predictions"] = str(options.pred)
    content["ground_truth"] = str(options.gt)
    content["events"] = list(truth.events)
    for kind in ("missing", "empty", "malformed", "extra"):
        content[kind] = list(getattr(reading, kind))
    if slices:
        content["breakdown"] = [
            {"name": part.name, "subset": part.subset, **part.curve.summary()} for part in slices
        ]
    return content


def _check_writable(path: Path) -> None:
    """Refuse a path that cannot be written, before the work."""
    with _naming(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not path.is_file():  # a device or pipe would be replaced by a file
            raise OSError(errno.EINVAL, "it is not a regular file")
        # Permissions are not enough: the disk may be full or read-only.
        with tempfile.TemporaryFile(dir=path.parent):
            pass


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Make errors name the user's file, not a temporary one beside it."""
    from evalkit.widerface_eval import WiderFaceError

    try:
        yield
    except OSError as error:
        raise WiderFaceError(
            f"{path}: the result cannot be written there ({error.strerror}). Name a file in a "
            "folder that exists and may be written."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
