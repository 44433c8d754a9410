"""``evalkit dump``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from evalkit.cli.options import Options, add_quiet, resolve

if TYPE_CHECKING:
    from evalkit.core.progress import Progress
    from evalkit.exchange.inputs import Inputs
    from evalkit.exchange.settings import DumpSettings

EPILOG = """\
examples:
  evalkit dump lfw --data lfw.bin --model r50.yaml --format bin --out dump
  ais_bench --model r50.om --input dump/inputs --output results --outfmt BIN
  evalkit lfw --data lfw.bin --model r50.yaml --backend outputs --manifest dump \\
      --outputs results/TIME --runtime-info dump/runtime-info.yaml --precision fp16

DIR has inputs/ (only inputs), manifest.json and items.jsonl (what each file is), file_list.txt,
inputs.info (number, file, width, height) and runtime-info.yaml, which you fill in.
After an interruption the same command resumes.
"""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    from evalkit.exchange.settings import DumpSettings, data_settings
    from evalkit.tasks import TASKS

    parser.argument_default = argparse.SUPPRESS
    parser.add_argument("kind", choices=sorted(TASKS), help="the task whose data set is written")
    options = Options(parser)
    options.add(DumpSettings)
    for setting, kind in data_settings().items():
        options.add(kind, [setting])
    add_quiet(options.group("form"))


def run(arguments: argparse.Namespace) -> int:
    """Write the inputs, and those to calibrate with."""
    from evalkit.backends.outputs.runtime_info import write_template
    from evalkit.core.progress import Progress
    from evalkit.exchange.dump import dump
    from evalkit.exchange.inputs import model_outputs, prepare_inputs
    from evalkit.exchange.settings import DumpSettings, data_settings

    config = resolve(arguments, DumpSettings)
    progress = Progress(quiet=getattr(arguments, "quiet", False))
    typed = vars(arguments)
    own = {name: typed[name] for name in data_settings() if name in typed}
    with prepare_inputs(config, progress, own) as inputs:
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
            print(
                f"{done.failures:,} images could not be read; they fail to enrol in the evaluation."
            )
        if config.calibration is not None:
            _calibration(config, inputs, progress)
        template = write_template(
            config.out, model_outputs(inputs.model, config.out, config.threads)
        )
    print(f"fill in {template} once the device has run them")
    return 0


def _calibration(config: DumpSettings, inputs: Inputs, progress: Progress) -> None:
    from evalkit.exchange.calibration import dump_calibration

    done = dump_calibration(config, inputs, progress)
    print(f"{done.inputs:,} inputs to calibrate with: {done.folder}")
    for warning in done.warnings:
        print(f"warning: {warning}")
