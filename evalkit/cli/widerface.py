"""``evalkit widerface``."""

from __future__ import annotations

import argparse
from pathlib import Path

from evalkit.cli.options import (
    add_run_options,
    check_folder,
    check_output,
    command_line,
    names,
    resolve,
)

_EPILOG = """\
examples:
  evalkit widerface                                  the embedded sample and its detector
  evalkit widerface --data WIDER --model scrfd-500m.yaml --output fp32.json
  evalkit widerface --data WIDER --model net.onnx --head retinaface --mean 104,117,123 --std 1 \\
      --color bgr --sizing original
  evalkit widerface --predictions PRED_DIR --ground-truth GT_DIR
  evalkit widerface --data WIDER --model scrfd-500m.yaml --save-images looks
"""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    parser.epilog = _EPILOG
    add_run_options(
        parser,
        "folder with WIDER_val/images (or images/) and the ground truth "
        "(default: $EVALKIT_DATA, else the embedded sample)",
    )
    truth = parser.add_argument_group("protocol")
    truth.add_argument(
        "--ground-truth",
        type=Path,
        metavar="DIR",
        help="folder of the official .mat files (looked for in --data)",
    )
    truth.add_argument("--events", type=names, metavar="NAME,...", help="only these events")
    truth.add_argument(
        "--rule",
        choices=["python", "python_file_order", "matlab", "matlab_int"],
        help="whose evaluation (python)",
    )
    truth.add_argument("--iou", type=float, metavar="X", help="overlap of a hit (0.5)")
    truth.add_argument("--steps", type=int, metavar="N", help="thresholds of the curve (1000)")
    detector = parser.add_argument_group("detector; what is not given is the model YAML's")
    detector.add_argument("--head", metavar="NAME", help="retinaface, scrfd, yunet, ...")
    detector.add_argument(
        "--sizing", metavar="TEXT", help="such as 'original' or 'short_side=800 max=1333'"
    )
    detector.add_argument(
        "--score-threshold", type=float, metavar="X", help="least score of a detection (0.02)"
    )
    detector.add_argument(
        "--nms-threshold",
        type=float,
        metavar="X",
        help="overlap above which the weaker of two detections goes (0.4)",
    )
    ready = parser.add_argument_group("ready-made input, instead of a model")
    ready.add_argument(
        "--predictions", type=Path, metavar="PATH", help="folder of event/image.txt, .json or .npz"
    )
    ready.add_argument(
        "--allow-missing",
        action="store_true",
        help="count missing files as without detections; the result is then partial, for no gate",
    )
    looks = parser.add_argument_group("more output")
    looks.add_argument(
        "--write-predictions", type=Path, metavar="PATH", help="folder, .json or .npz to write"
    )
    looks.add_argument(
        "--save-images", type=Path, metavar="DIR", help="pictures of the worst images, and curves"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, print the table, write what was asked for."""
    from evalkit.core.progress import Progress
    from evalkit.report.curves import write_pr_curves
    from evalkit.report.detection import describe
    from evalkit.report.pictures import write_detection_pictures
    from evalkit.tasks.widerface.evaluation import evaluate
    from evalkit.tasks.widerface.settings import WiderFaceSettings
    from evalkit.widerface_eval import write_predictions

    config = resolve(arguments, WiderFaceSettings)
    check_output(config.output)
    check_folder(config.save_images, "--save-images")
    _check_new(config.write_predictions)
    progress = Progress(quiet=getattr(arguments, "quiet", False))
    done = evaluate(config, progress, command=command_line(arguments))
    result = done.result
    print(describe(result))
    if config.output is not None:
        result.save(config.output, done.counts.arrays())
        print(f"\nresult: {config.output}")
    if config.write_predictions is not None:
        write_predictions(config.write_predictions, done.predicted)
        lost = len(done.evaluation.detections.images) - len(done.predicted.images)
        if lost:
            progress.say(f"{config.write_predictions}: without {lost} images that have no outcome")
    if config.save_images is not None:
        written = write_pr_curves(config.save_images, {result.model.name: done.evaluation.curves})
        if done.images is None:
            progress.say("no image is there to draw on: only the curves are written")
        else:
            written += write_detection_pictures(config.save_images, done.images, done.evaluation)
        progress.say(f"pictures: {len(written)} files in {config.save_images}")
    return 0


def _check_new(predictions: Path | None) -> None:
    """See before the long work that predictions can be written, over nothing that is there."""
    from evalkit.core.errors import InputError

    if predictions is not None and predictions.exists():
        raise InputError(f"--write-predictions {predictions} is there already. Name a new one.")
    check_output(predictions, "--write-predictions")
