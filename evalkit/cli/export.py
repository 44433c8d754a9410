"""``evalkit export``."""

from __future__ import annotations

import argparse
from pathlib import Path

from evalkit.cli.options import Options, command_line, count, resolve

EPILOG = """\
examples:
  evalkit export backbone.pt --to onnx --out backbone.onnx
  evalkit export weights.pth --architecture iresnet50 --to onnx --batch 32 --out r50.onnx
  evalkit export y1-symbol.json --to onnx --mean 0 --std 1 --out y1.onnx
  evalkit export weights.pth --architecture iresnet50 --to torchscript --out r50.pt

Both models run on the same random images. Their outputs are compared with rtol 1e-3 and --atol.
Exit code 1: a larger atol is needed. The file is written in any case.
"""


_RUN = ("architecture", "python", "threads", "color", "layout", "mean", "std")


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    from evalkit.core.settings import RunSettings

    parser.argument_default = argparse.SUPPRESS
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="TorchScript, an exported program, a state dict, MXNet's symbol, or a model YAML",
    )
    parser.add_argument("--to", choices=["onnx", "torchscript"], required=True, help="format")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="file to write")
    parser.add_argument(
        "--batch", type=count, metavar="N", default=None, help="fix the batch size (default: open)"
    )
    parser.add_argument(
        "--opset", type=int, metavar="N", default=18, help="opset of ONNX (default: 18)"
    )
    parser.add_argument(
        "--simplify", action="store_true", default=False, help="fold constants with OnnxSlim"
    )
    parser.add_argument(
        "--overwrite", dest="replace", action="store_true", default=False, help="replace --out"
    )
    parser.add_argument(
        "--atol",
        type=float,
        metavar="X",
        default=1e-6,
        help="largest atol that passes (default: 1e-06)",
    )
    Options(parser).add(RunSettings, _RUN)


def run(arguments: argparse.Namespace) -> int:
    """Export, and print how well both models agree."""
    from evalkit.convert.export.run import RTOL, ExportSettings, export
    from evalkit.core.settings import RunSettings, load_model_config

    config = resolve(arguments, RunSettings, _RUN)
    model = load_model_config(arguments.model, config)
    source = Path(arguments.model)
    if source.suffix in {".yaml", ".yml"} or not source.exists():
        source = model.file_for("mxnet" if "mxnet" in model.files else "torch")
    done = export(
        model,
        source,
        arguments.out,
        ExportSettings(
            target=arguments.to,
            batch=arguments.batch,
            opset=arguments.opset,
            simplify=arguments.simplify,
            atol=arguments.atol,
            python=config.python,
            threads=config.threads,
        ),
        overwrite=arguments.replace,
        command=command_line(arguments),
    )
    print(
        f"{done.out}: {done.candidate} against {done.reference}: largest difference "
        f"{done.largest:.3g}"
    )
    met = "met" if done.agrees else "NOT MET"
    print(
        f"assert_allclose with rtol {RTOL:g} needs atol {done.atol_needed:.3g}; "
        f"the limit is {arguments.atol:g}: {met}"
    )
    return 0 if done.agrees else 1
