"""Describe the command line's options and settings as plain data, for comparison with a record.

Users' scripts rest on the record. Where a change of an option is meant, write the record anew, in
the root of the checkout, and read its difference::

    PYTHONPATH=. python tests/cli/parsers.py
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from evalkit.backends.outputs.runtime_info import OutputSpec, RuntimeInfo
from evalkit.cli import build_parser
from evalkit.cli.bench import BenchSettings
from evalkit.cli.options import resolve
from evalkit.convert.settings import ConversionSettings
from evalkit.core.errors import EvalkitError
from evalkit.core.option import not_for_plans
from evalkit.core.settings import InputSpec, ModelConfig, RunSettings, RuntimeConfig
from evalkit.exchange.settings import DumpSettings
from evalkit.tasks.ijb.settings import IjbSettings
from evalkit.tasks.lfw.settings import LfwSettings
from evalkit.tasks.widerface.settings import WiderFaceSettings
from evalkit.verdict import plan
from evalkit.verdict.gate import MetricPolicy, Policy

KINDS: dict[str, type[BaseModel]] = {
    "ijbc": IjbSettings,
    "ijbb": IjbSettings,
    "lfw": LfwSettings,
    "widerface": WiderFaceSettings,
    "dump": DumpSettings,
    "convert": ConversionSettings,
    "export": RunSettings,
    "bench": BenchSettings,
}
"""Settings of the commands that have some."""

PARTS_OF_A_PLAN = (
    *(plan.Plan, plan.Models, plan.ProtocolPlan, plan.Margin, plan.Limits, plan.Matrix),
    *(plan.Override, plan.DeviceOutputs, plan.Statistics, plan.Bench),
)

CLASSES: dict[str, type[BaseModel]] = {
    kind.__name__: kind
    for kind in (
        *(*KINDS.values(), ModelConfig, InputSpec, RuntimeConfig),
        *(*PARTS_OF_A_PLAN, Policy, MetricPolicy, RuntimeInfo, OutputSpec),
    )
}

LINES: dict[str, list[str]] = {
    "ijbc": [
        "",
        "--data D --limit 5 --max-failures 3 --quiet",
        "--model m.onnx --backend torch --precision int8 --device cuda:1 --architecture iresnet50",
        "--python /x/python --worker-timeout 2.5 --color bgr --layout nhwc --mean 1,2,3 --std 128",
        "--outputs O --manifest M --throughput-log T --verify all",
        "--runtime-info no-such.yaml",
        "--verify 12 --batch-size 8 --threads 2 --decode-threads 3 --shard-size 7",
        "--output r.json --outputs-dir S --overwrite always",
        "--overwrite only-missing --overwrite never",
        "--no-keep-norm --no-detector-score --flip concat --rule interpolated --far 1e-3,1e-5,1e-3",
        "--keep-norm --detector-score --intervals --one-to-n --identification-rule open_set",
        "--no-intervals --no-one-to-n --flip none --far 0.01",
        "--features a.npy --features-flip b.npy",
        "--templates t.npz --one-to-n",
        "--scores s.txt",
        "--batch 4",  # an abbreviation
        "--features a.npy --scores s.txt",
        "--far 2",
        "--far 1e-3,",
        "--far x",
        "--mean 1,2",
        "--std x",
        "--verify -1",
        "--verify some",
        "--precision fp8",
        "--color grey",
        "--limit 0",
        "--limit 1.5",
        "--threads 2000",
        "--batch-size 0",
        "--worker-timeout 0",
        "--worker-timeout x",
        "--no-such",
        "extra",
        "--rule python",
        "--max-failures -1",
    ],
    "ijbb": ["", "--data D --one-to-n --far 1e-4", "--templates t.npz --scores s.npz"],
    "lfw": [
        "",
        "--flip",
        "--no-flip --rules exact,insightface,exact --far 1e-3,1e-2 --folds interleaved",
        "--embeddings e.npy --embeddings-flip f.npy --errors E --output r.json",
        "--embeddings-flip f.npy",
        "--embeddings e.npy --limit 4",
        "--rules exact,",
        "--rules other",
        "--far 1",
        "--folds none",
        "--max-failures 5",
        "--flip sum",
        "--errors E --backend outputs --manifest M --outputs O",
    ],
    "widerface": [
        "",
        "--data W --ground-truth G --events A,B, --rule matlab_int --iou 0.3 --steps 50",
        "--head scrfd --sizing short_side=800 --score-threshold 0.3 --nms-threshold 0.5",
        "--predictions P --allow-missing --write-predictions Q --save-images S",
        "--events , --rule python_file_order",
        "--iou 0",
        "--iou 1.1",
        "--steps 0",
        "--no-allow-missing",
        "--rule at_most",
        "--score-threshold x",
        "--far 1e-3",
    ],
    "dump": [
        "lfw",
        "lfw --out D",
        "ijbb --out D --data X --model m.yaml --color bgr --layout nhwc --mean 1 --std 1,2,3",
        "ijbc --out D --format npz --batch 4 --dtype uint8 --no-flip --limit 3 --decode-threads 2",
        "widerface --out D --sizing original --events A,B --ground-truth G --quiet",
        "lfw --out D --calibration 5 --calibration-data C --seed 3 --flip",
        "cfp --out D",
        "lfw --out D --format raw",
        "lfw --out D --batch 0",
        "lfw --out D --seed -1",
        "lfw --out D --threads 2",
        "lfw --out D --backend torch",
    ],
    "convert": [
        "m.onnx --to int8 --out o.onnx",
        "m.onnx --to fp16 --out o.onnx --backend openvino --overwrite --yaml y.yaml",
        "m.onnx --to int8 --out o --calibration C --evaluated E --samples 3 --held-out 4 --seed 5",
        "m.onnx --to int8 --out o --method entropy --no-per-channel --no-symmetric",
        "m.onnx --to int8 --out o --per-channel --symmetric --least-cosine 0.5",
        "m.onnx --to int8 --out o --exclude a --exclude b* --auto-exclude --until-cosine 0.9",
        "m.onnx --to int8 --out o --auto-exclude --until-accuracy 0.9",
        "m.onnx --to int8 --out o --until-accuracy 0.9",
        "m.onnx --to bf16 --out o --architecture a --color bgr --layout nhwc --mean 1 --std 1,2,3",
        "m.onnx --to bf16 --out o --device cuda --threads 2 --python p --worker-timeout 3 --quiet",
        "m.onnx --to fp32 --out o",
        "m.onnx --to int8",
        "--to int8 --out o",
        "m.onnx --to int8 --out o --samples 0",
        "m.onnx --to int8 --out o --least-cosine 2",
        "m.onnx --to int8 --out o --method max",
    ],
    "export": [
        "m.pt --to onnx --out o.onnx",
        "m.pt --to torchscript --out o.pt --architecture a --batch 4 --opset 17 --simplify",
        "m.pt --to onnx --out o.onnx --overwrite --atol 1e-4 --threads 2 --python p",
        "m.pt --to onnx --out o.onnx --color bgr --layout nhwc --mean 1 --std 1,2,3",
        "m.pt --to onnx --out o.onnx --batch 0",
        "m.pt --to onnx --out o.onnx --threads 0",
        "m.pt --to int8 --out o.onnx",
        "m.pt --out o.onnx",
    ],
    "bench": [
        "",
        "--model m.onnx --architecture a --layout nhwc --python p --worker-timeout 3",
        "--backends a,b,a --precisions fp32,int8 --batch-sizes 1,2 --threads 1,2 --device cuda",
        "--repeats 2 --seconds 0.5 --output b.json --quiet",
        "--batch-sizes 0",
        "--threads x",
        "--repeats 0",
        "--seconds 0",
        "--worker-timeout 0",
        "--worker-timeout inf",
        "--worker-timeout x",
        "--backends ,",
        "--layout x",
    ],
    "backends": [
        "",
        "--json --python p --worker-timeout 3",
        "--check torch --model m --precision int8 --device cuda --threads 2 --architecture a",
        "--check torch --layout nhwc --data D --images 4 --reference openvino --least-cosine 0.5",
        "--check torch --precision fp8",
        "--check torch --threads 0",
        "--check torch --worker-timeout -1",
        "--images x",
    ],
    "signoff": ["p", "p --out D --dry-run --only a --only b --quiet", ""],
    "gate": [
        "r.json --baseline b.json",
        "r --baseline b --policy strict --update --output o --junit j --markdown m",
        "r.json",
    ],
    "compare": ["a b", "a b --output o --all", "a"],
    "report": ["a b", "a --baseline b --baseline c --bench d --title T --out o.md", ""],
    "inspect": ["f.bin", ""],
    "sample": [
        "--kind lfw --out D",
        "--kind ijbb --out D --size tiny",
        "--kind x --out D",
    ],
    "env": ["create mxnet", "create mxnet --path P --base B", "list", "create nothing", ""],
    "pack": [
        "lfw --out o.bin",
        "lfw --pairs p --images i --out o --align detector --detector d --backend b",
        "lfw --out o --align 5pt --points p --score-threshold 0.1 --count 40 --seed 2",
        "lfw --out o --encoding jpeg --quality 80",
        "ijbc --out o",
        "lfw",
    ],
}
"""Command lines whose parsed values are recorded: each option of each command, right and wrong."""


def describe_options(command: str) -> list[dict[str, Any]]:
    """Return the options of a command, as they were declared."""
    return sorted(
        (option for parser in _parsers(command) for option in _options(parser)),
        key=lambda option: (option["parser"], option["names"] or [option["dest"]]),
    )


def _parsers(command: str) -> list[argparse.ArgumentParser]:
    parser = _children(build_parser(command))[command]
    return [parser, *_children(parser).values()]


def _children(parser: argparse.ArgumentParser) -> dict[str, Any]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _options(parser: argparse.ArgumentParser) -> list[dict[str, Any]]:
    return [
        {
            "parser": parser.prog,
            "names": list(action.option_strings),
            "dest": action.dest,
            "action": type(action).__name__,
            "nargs": action.nargs,
            "metavar": action.metavar,
            "choices": None if action.choices is None else sorted(action.choices),
            "required": action.required,
            "default": plain(action.default),
        }
        for action in parser._actions
    ]


def parse(line: str, command: str) -> dict[str, Any]:
    """Return what a command line comes to: the values, or the exit code of a refusal.

    Where the command has settings, they are built from the line.
    """
    words = [command, *line.split()]
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            found = build_parser(command).parse_args(words)
    except SystemExit as exit_:
        return {"exit": exit_.code}
    values = {name: plain(value) for name, value in vars(found).items() if name != "run"}
    kind = KINDS.get(command)
    try:
        if kind is None:
            return {"values": values}
        settings = resolve(found, kind)
    except EvalkitError as error:
        return {"exit": error.exit_code}
    rest = {name: value for name, value in values.items() if name not in kind.model_fields}
    named = sorted(settings.model_fields_set)
    return {"settings": {name: plain(getattr(settings, name)) for name in named}, "values": rest}


def describe_settings(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the keys that a YAML file of a class may have, with types and defaults."""
    return {
        name: {
            "type": type_name(field.annotation),
            "default": "<required>"
            if field.is_required()
            else plain(field.get_default(call_default_factory=True)),
            "limits": sorted(repr(part) for part in field.metadata if _limits(part)),
        }
        for name, field in sorted(kind.model_fields.items())
    }


def _limits(part: Any) -> bool:
    return type(part).__module__ == "annotated_types"


def type_name(annotation: Any) -> str:
    """Spell a type without the metadata of its parts."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        limits = [repr(part) for part in parts[1:] if _limits(part)]
        return " ".join([type_name(parts[0]), *limits])
    if origin in {Union, types.UnionType}:
        return " | ".join(type_name(part) for part in parts)
    if origin is Literal:
        return f"one of {', '.join(map(repr, parts))}"
    if origin is not None:
        return f"{origin.__name__}[{', '.join(type_name(part) for part in parts)}]"
    return "..." if annotation is ... else getattr(annotation, "__name__", repr(annotation))


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return value


def main() -> None:
    """Write the record anew."""
    options = {command: describe_options(command) for command in sorted(LINES)}
    lines = {
        command: {line: parse(line, command) for line in sorted(LINES[command])}
        for command in sorted(LINES)
    }
    settings = {name: describe_settings(kind) for name, kind in sorted(CLASSES.items())}
    refused = {
        kind.__name__: sorted(not_for_plans(kind))
        for kind in (IjbSettings, LfwSettings, WiderFaceSettings)
    }
    folder = Path(__file__).parent
    for name, value, depth in (
        ("options", options, 2),
        ("lines", lines, 2),
        ("settings", {"plan_refuses": refused, "settings": settings}, 3),
    ):
        (folder / f"{name}.json").write_text(_text(value, depth) + "\n", encoding="utf-8")


def _text(value: Any, depth: int) -> str:
    """Return JSON with a line for each entry, down to a depth."""
    if depth == 0 or not value:
        return json.dumps(value, sort_keys=True)
    if isinstance(value, dict):
        inner = [f"{json.dumps(key)}: {_text(part, depth - 1)}" for key, part in value.items()]
        return "{\n" + ",\n".join(inner) + "\n}"
    return "[\n" + ",\n".join(_text(part, depth - 1) for part in value) + "\n]"


if __name__ == "__main__":
    main()
