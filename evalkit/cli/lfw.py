"""``evalkit lfw``."""

from __future__ import annotations

import argparse
from pathlib import Path

from evalkit.cli.options import (
    add_run_options,
    check_folder,
    check_output,
    command_line,
    numbers,
    resolve,
)

_EPILOG = """\
examples:
  evalkit lfw                                        the embedded sample and its model
  evalkit lfw --data lfw.bin --model backbone.onnx --output fp32.json
  evalkit lfw --data SETS --model r50.yaml --backend torch     every .bin, one table
  evalkit lfw --data lfw.bin --model backbone.onnx --errors errors
"""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    parser.epilog = _EPILOG
    add_run_options(
        parser,
        "a .bin, or a folder of several (default: $EVALKIT_DATA, else the embedded sample)",
        failures="0: a set is whole",
        results="; of a folder's sets as NAME.SET.json each",
    )
    rules = parser.add_argument_group("protocol")
    boolean = argparse.BooleanOptionalAction
    rules.add_argument("--flip", action=boolean, help="add the mirrored image's embedding (on)")
    rules.add_argument(
        "--rules", type=_names, metavar="NAME,...", help="of accuracy (insightface,exact)"
    )
    rules.add_argument("--far", type=numbers, metavar="X,X,...", help="of VAL and TAR (1e-3)")
    rules.add_argument(
        "--folds", choices=["auto", "contiguous", "interleaved"], help="how pairs fill them (auto)"
    )
    ready = parser.add_argument_group("ready-made input, instead of a model")
    ready.add_argument(
        "--embeddings", type=Path, metavar="NPY", help="one row an image, in the set's order"
    )
    ready.add_argument("--embeddings-flip", type=Path, metavar="NPY", help="of mirrored images")
    rules.add_argument(
        "--errors", type=Path, metavar="DIR", help="write pictures of the worst errors there"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate every set, print the table, write the results."""
    from evalkit.core.progress import Progress
    from evalkit.report.lfw import describe, describe_all
    from evalkit.report.sheets import write_error_sheets
    from evalkit.tasks.lfw.evaluation import evaluate, find_sets
    from evalkit.tasks.lfw.settings import LfwSettings

    config = resolve(arguments, LfwSettings)
    check_output(config.output)
    check_folder(config.errors, "--errors")
    progress = Progress(quiet=getattr(arguments, "quiet", False))
    paths = find_sets(config, progress)
    results = []
    try:
        for path in paths:
            result, scores, pairs = evaluate(
                path, config, progress, command=command_line(arguments)
            )
            results.append(result)
            if config.output is not None:
                target = config.output
                if len(paths) > 1:
                    target = target.with_name(f"{target.stem}.{path.stem}{target.suffix}")
                result.save(target, scores)
                progress.say(f"result: {target}")
            if config.errors is not None:
                for sheet in write_error_sheets(config.errors, pairs, result, scores):
                    progress.say(f"errors: {sheet}")
    finally:
        # What was computed is shown even where a file cannot be written, or a later set is bad.
        if results:
            print(describe(results[0]) if len(paths) == 1 else describe_all(results))
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))
