"""``evalkit ijbc`` and ``evalkit ijbb``."""

from __future__ import annotations

import argparse
from pathlib import Path

from evalkit.cli.options import add_run_options, check_output, command_line, numbers, resolve

_EPILOG = """\
examples:
  evalkit {name}                                     the embedded sample and its model
  evalkit {name} --data RELEASE --model backbone.onnx --output fp32.json
  evalkit {name} --data RELEASE --model r50.yaml --backend torch --one-to-n
  evalkit {name} --data RELEASE --features feats.npy --far 1e-5,1e-4
"""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    parser.epilog = _EPILOG.format(name=name)
    add_run_options(
        parser,
        f"release folder with meta/ and loose_crop/, or the folder that holds {name.upper()}/ "
        "(default: $EVALKIT_DATA, else the embedded sample)",
    )
    rules = parser.add_argument_group(
        "protocol",
        "N, D and F are InsightFace's names of the three switches of fusion (N1D1F1: all on)",
    )
    boolean = argparse.BooleanOptionalAction
    rules.add_argument(
        "--keep-norm",
        action=boolean,
        help="N: keep the norm of the features when they are pooled (on)",
    )
    rules.add_argument(
        "--detector-score", action=boolean, help="D: weigh faces by their detector score (on)"
    )
    rules.add_argument(
        "--flip",
        choices=["none", "sum", "concat"],
        help="F: how the mirrored image's feature is joined (sum)",
    )
    rules.add_argument(
        "--rule",
        choices=["at_most", "insightface_nearest", "interpolated"],
        help="how TAR at a FAR is read (at_most)",
    )
    rules.add_argument("--far", type=numbers, metavar="X,X,...", help="targets (1e-6,...,1e-1)")
    rules.add_argument(
        "--intervals", action=boolean, help="of TAR at_most, from drawn subjects (on)"
    )
    rules.add_argument("--one-to-n", action=boolean, help="also 1:N identification (off)")
    rules.add_argument(
        "--identification-rule", choices=["open_set", "insightface_closed"], help="(open_set)"
    )
    ready = parser.add_argument_group("ready-made input, instead of a model")
    ready.add_argument(
        "--features", type=Path, metavar="NPY", help="one row a face, in the order of the images"
    )
    ready.add_argument("--features-flip", type=Path, metavar="NPY", help="of the mirrored images")
    ready.add_argument(
        "--templates", type=Path, metavar="NPZ", help="template_id and features, one row each"
    )
    ready.add_argument(
        "--scores",
        type=Path,
        metavar="FILE",
        help=".npz (scores) or .txt, in the order of the pairs",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, print the table, write the result."""
    from evalkit.core.progress import Progress
    from evalkit.report.ijb import describe
    from evalkit.tasks.ijb.evaluation import evaluate
    from evalkit.tasks.ijb.settings import IjbSettings

    config = resolve(arguments, IjbSettings)
    check_output(config.output)
    progress = Progress(quiet=getattr(arguments, "quiet", False))
    result, scores = evaluate(
        arguments.command.upper(), config, progress, command=command_line(arguments)
    )
    print(describe(result))
    if config.output is not None:
        result.save(config.output, scores)
        print(f"\nresult: {config.output}")
    return 0
