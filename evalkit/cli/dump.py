"""``evalkit dump``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.cli.options import add_preparation_options, names, resolve

if TYPE_CHECKING:
    from evalkit.core.progress import Progress
    from evalkit.exchange.inputs import Inputs
    from evalkit.exchange.settings import DumpSettings

_EPILOG = """\
examples:
  evalkit dump lfw --data lfw.bin --model r50.yaml --format bin --out dump
  ais_bench --model r50.om --input dump/inputs --output results --outfmt BIN
  evalkit lfw --data lfw.bin --model r50.yaml --backend outputs --manifest dump \\
      --outputs results/TIME --runtime-info dump/runtime-info.yaml --precision fp16

DIR gets inputs/ (nothing but inputs), manifest.json and items.jsonl (what each file is),
file_list.txt, inputs.info (number, file, width, height) and runtime-info.yaml to be filled in.
The same command goes on where an interrupted one stopped.
"""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    parser.epilog = _EPILOG
    parser.argument_default = argparse.SUPPRESS
    parser.add_argument("kind", choices=["lfw", "ijbb", "ijbc", "widerface"], help="the data set")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder to write")
    parser.add_argument(
        "--data", type=Path, metavar="PATH", help="(default: $EVALKIT_DATA, else the sample)"
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        metavar="YAML",
        help="model YAML, its name, or a model file: how images are prepared is read from it",
    )
    add_preparation_options(model)
    form = parser.add_argument_group("form")
    form.add_argument(
        "--format",
        choices=["bin", "npy", "image", "npz"],
        help="raw little-endian tensors, .npy, PNG pictures before normalisation, or .npz shards "
        "(bin)",
    )
    form.add_argument("--batch", type=int, metavar="N", help="inputs a file (1; of npz 256)")
    form.add_argument(
        "--dtype", choices=["float32", "uint8"], help="uint8: pixels, not normalised (float32)"
    )
    form.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, help="faces mirrored too (on)"
    )
    form.add_argument("--sizing", metavar="TEXT", help="of a detector (the model YAML's)")
    form.add_argument(
        "--events", type=names, metavar="NAME,...", help="only these events of WIDER FACE"
    )
    form.add_argument(
        "--ground-truth",
        type=Path,
        metavar="DIR",
        help="folder of WIDER FACE's .mat files (looked for in --data)",
    )
    form.add_argument("--limit", type=int, metavar="N", help="a quick look at about N images")
    form.add_argument("--decode-threads", type=int, metavar="N", help="(cores)")
    form.add_argument("--quiet", action="store_true", help="no progress")
    calibration = parser.add_argument_group("calibration")
    calibration.add_argument(
        "--calibration",
        type=int,
        metavar="N",
        help="also N inputs to calibrate with, in DIR/calibration, of other people than the data's "
        "where the data tell",
    )
    calibration.add_argument(
        "--calibration-data", type=Path, metavar="PATH", help="drawn from there (from the data)"
    )
    calibration.add_argument("--seed", type=int, metavar="N", help="of the draw (0)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the inputs, and those to calibrate with."""
    from evalkit.backends.outputs.runtime_info import write_template
    from evalkit.core.progress import Progress
    from evalkit.exchange.dump import dump
    from evalkit.exchange.inputs import model_outputs, prepare_inputs
    from evalkit.exchange.settings import DumpSettings

    config = resolve(arguments, DumpSettings)
    progress = Progress(quiet=getattr(arguments, "quiet", False))
    inputs = prepare_inputs(config, progress)
    done = dump(
        config.out,
        inputs.manifest,
        inputs.source,
        inputs.views,
        inputs.normalise,
        progress,
        threads=config.decode_threads,
    )
    print(
        f"{done.inputs:,} inputs of {len(inputs.source):,} images in {done.files:,} files: "
        f"{done.folder / 'inputs'}"
    )
    if done.failures:
        print(f"{done.failures:,} images could not be read; they fail to enrol in the evaluation.")
    if config.calibration is not None:
        _calibration(config, inputs, progress)
    template = write_template(config.out, model_outputs(inputs.model, config.out, config.threads))
    print(f"fill in {template} once the device has run them")
    return 0


def _calibration(config: DumpSettings, inputs: Inputs, progress: Progress) -> None:
    from evalkit.exchange.calibration import dump_calibration

    done = dump_calibration(config, inputs, progress)
    print(f"{done.inputs:,} inputs to calibrate with: {done.folder}")
    for warning in done.warnings:
        print(f"warning: {warning}")
