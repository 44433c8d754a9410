"""``evalkit backends``."""

from __future__ import annotations

import argparse
from pathlib import Path

_EPILOG = """\
examples:
  evalkit backends                                  what is here, and what brings the rest
  evalkit backends --json
  evalkit backends --check openvino                 the embedded network, against ONNX Runtime
  evalkit backends --check openvino --model r50.yaml --precision int8 --data faces.bin

--check opens the model, runs random and real images, and compares with a reference backend.
Exit code 1: they differ by more than the bound; 2: it does not open or run; 3: no other backend
here opens the model.
"""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options."""
    parser.epilog = _EPILOG
    parser.add_argument("--json", action="store_true", help="the table as JSON")
    parser.add_argument(
        "--python", type=Path, metavar="FILE", help="ask the backends of this interpreter"
    )
    parser.add_argument(
        "--worker-timeout",
        type=float,
        metavar="S",
        help="seconds that a worker may take to probe a backend (120), or, of --check, to open the "
        "model, and for a batch (600)",
    )
    check = parser.add_argument_group("doctor")
    check.add_argument("--check", metavar="NAME", help="check this backend with a model")
    check.add_argument(
        "--model",
        metavar="FILE",
        help="model file, model YAML, or its name (the embedded network)",
    )
    check.add_argument(
        "--precision", choices=["fp32", "fp16", "bf16", "int8"], default="fp32", help="(fp32)"
    )
    check.add_argument("--device", default="cpu", metavar="DEVICE", help="cpu, cuda, ... (cpu)")
    check.add_argument("--threads", type=int, metavar="N", help="threads of the runtime (cores)")
    check.add_argument("--architecture", metavar="NAME", help="for files of weights alone")
    check.add_argument("--layout", choices=["nchw", "nhwc"], help="tensor layout (nchw)")
    check.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="real images: a .bin, an IJB release, WIDER FACE, a folder (the embedded sample)",
    )
    check.add_argument("--images", type=int, default=16, metavar="N", help="of each kind (16)")
    check.add_argument(
        "--reference", metavar="NAME", help="the backend to compare with (the first that can)"
    )
    check.add_argument(
        "--least-cosine",
        type=float,
        metavar="X",
        help="bound of agreement (fp32 .9999, fp16 .999, bf16 .99, int8 .97)",
    )
    parser.set_defaults(run=run)


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
    from evalkit.core.validation import COMMAND_LINE, validate
    from evalkit.report.doctor import backends_json, describe_backends

    given = validate(RunSettings, {"worker_timeout": arguments.worker_timeout}, COMMAND_LINE)
    python = find_interpreter(arguments.python or sys.executable)
    backends = survey(python, given.worker_timeout)
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
    from evalkit.core.validation import validate
    from evalkit.report.doctor import describe_checkup

    if arguments.images < 1:
        raise InputError("--images must be 1 or more.")
    names = ["precision", "device", "threads", "architecture", "layout", "data"]
    names += ["python", "worker_timeout"]
    given = {name: getattr(arguments, name) for name in names}
    run_config = validate(RunSettings, {**given, "backend": arguments.check}, "command line")
    checkup = check(
        model_to_check(arguments.model, run_config),
        run_config,
        reference=arguments.reference,
        images=arguments.images,
        least_cosine=arguments.least_cosine,
        progress=Progress(),
    )
    print(describe_checkup(checkup))
    if checkup.reference is None:
        return EXIT_CANNOT_JUDGE
    return EXIT_OK if checkup.agrees else EXIT_FAILED
