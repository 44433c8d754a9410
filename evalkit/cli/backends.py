"""``evalkit backends``."""

from __future__ import annotations

import argparse
from pathlib import Path

from evalkit.cli.options import Options, resolve

EPILOG = """\
examples:
  evalkit backends                                  what is here, and what brings the rest
  evalkit backends --json
  evalkit backends --check openvino                 the embedded network, against ONNX Runtime
  evalkit backends --check openvino --model r50.yaml --precision int8 --data faces.bin

Without --check a worker has 120 s to probe a backend.
--check opens the model, runs random and real images, and compares with a reference backend.
Exit code 1: the outputs differ too much; 2: the model does not open or run; 3: no other backend
here opens the model.
"""


_MODEL = ("precision", "device", "threads", "architecture", "layout")
_RUN = (*_MODEL, "data", "python", "worker_timeout")


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    from evalkit.core.settings import RunSettings

    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    options = Options(parser)
    options.add(RunSettings, ("python", "worker_timeout"), group="")
    check = options.group("doctor")
    check.add_argument("--check", metavar="NAME", help="check this backend")
    check.add_argument(
        "--model",
        metavar="FILE",
        help="model file, model YAML, or its name (default: the embedded network)",
    )
    options.add(RunSettings, _MODEL, group="doctor")
    check.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="real images: a .bin, an IJB release, WIDER FACE, a folder "
        "(default: the embedded sample)",
    )
    check.add_argument(
        "--images", type=int, default=16, metavar="N", help="images of each kind (default: 16)"
    )
    check.add_argument(
        "--reference", metavar="NAME", help="backend to compare with (default: the first that can)"
    )
    check.add_argument(
        "--least-cosine",
        type=float,
        metavar="X",
        help="least cosine that agrees (default: fp32 .9999, fp16 .999, bf16 .99, int8 .97)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Show the backends, or check one."""
    from evalkit.core.errors import InputError

    if arguments.check is not None:
        return _check(arguments)
    if arguments.model is not None:
        raise InputError("--model is what --check checks: name a backend, as in --check torch.")
    return _list(arguments)


def _list(arguments: argparse.Namespace) -> int:
    import json
    import sys

    from evalkit.backends.worker.process import find_interpreter
    from evalkit.convert.doctor import survey
    from evalkit.core.settings import RunSettings
    from evalkit.report.doctor import backends_json, describe_backends

    settings = resolve(arguments, RunSettings, ("worker_timeout", "python"))
    python = find_interpreter(settings.python or sys.executable)
    backends = survey(python, settings.worker_timeout)
    if arguments.json:
        print(json.dumps(backends_json(backends), indent=2))
    else:
        print(describe_backends(backends))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from evalkit.convert.doctor import check, model_to_check
    from evalkit.core.errors import EXIT_CANNOT_JUDGE, EXIT_FAILED, EXIT_OK, InputError
    from evalkit.core.progress import Progress
    from evalkit.core.settings import RunSettings
    from evalkit.report.doctor import describe_checkup

    if arguments.images < 1:
        raise InputError("--images must be 1 or more.")
    settings = resolve(arguments, RunSettings, _RUN)
    settings = settings.model_copy(update={"backend": arguments.check})
    checkup = check(
        model_to_check(arguments.model, settings),
        settings,
        reference=arguments.reference,
        images=arguments.images,
        least_cosine=arguments.least_cosine,
        progress=Progress(),
    )
    print(describe_checkup(checkup))
    if checkup.reference is None:
        return EXIT_CANNOT_JUDGE
    return EXIT_OK if checkup.agrees else EXIT_FAILED
