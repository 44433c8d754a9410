"""Plans: what a YAML file may say, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from evalkit.core.errors import InputError
from evalkit.verdict.plan import Margin, Mode, Plan, find_plan, load_plan

BASE: dict[str, Any] = {
    "name": "release",
    "models": {"recognition": "r50.yaml", "detector": "scrfd.yaml"},
    "protocols": [
        {
            "kind": "ijbc",
            "data": "IJBC",
            "settings": {"far": [1e-4, 1e-3]},
            "primary": "tar@far=1e-04",
            "margin": {"points": 0.2},
        },
        {
            "name": "cfp",
            "kind": "lfw",
            "primary": "accuracy/exact",
            "margin": {"relative": 0.1},
            "limits": {"drift_cosine_p1": 0.95},
        },
    ],
    "matrix": {
        "backends": ["onnxruntime", "torch"],
        "precisions": ["fp32", "fp16"],
        "exclude": ["onnxruntime:fp16"],
        "include": ["torch:int8"],
        "cells": {"torch": {"threads": 2}, "torch:int8": {"file": "r50-int8.pt2"}},
    },
    "reference": "onnxruntime",
}


def written(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def changed(**values: Any) -> dict[str, Any]:
    return {**BASE, **values}


def protocol(**values: Any) -> dict[str, Any]:
    return changed(protocols=[{**BASE["protocols"][0], **values}])


def test_a_plan_says_its_rows_and_overrides(tmp_path: Path) -> None:
    plan = load_plan(written(tmp_path, BASE))
    assert plan.matrix.modes() == (
        Mode("onnxruntime", "fp32"),
        Mode("torch", "fp32"),
        Mode("torch", "fp16"),
        Mode("torch", "int8"),
    )
    assert plan.reference_mode == Mode("onnxruntime", "fp32")
    assert plan.matrix.override(Mode("torch", "fp16")).threads == 2
    assert plan.matrix.override(Mode("torch", "int8")).file == "r50-int8.pt2"
    assert plan.protocols[0].name == "ijbc"
    assert plan.folder == tmp_path


def test_a_protocol_leaves_out_rows_and_starts_with_the_reference(tmp_path: Path) -> None:
    values = protocol(exclude=["torch:int8", "onnxruntime:fp16"])
    values["matrix"] = {"backends": ["torch", "onnxruntime"], "precisions": ["fp32", "fp16"]}
    values["matrix"]["include"] = ["torch:int8"]
    plan = load_plan(written(tmp_path, values))
    modes = [str(mode) for mode in plan.modes_of(plan.protocols[0])]
    assert modes == ["onnxruntime:fp32", "torch:fp32", "torch:fp16"]


def test_the_hash_is_of_what_the_plan_says(tmp_path: Path) -> None:
    plan = load_plan(written(tmp_path, BASE))
    (tmp_path / "other").mkdir()
    assert load_plan(written(tmp_path / "other", BASE)).sha256 == plan.sha256
    assert load_plan(written(tmp_path, protocol(margin={"points": 0.3}))).sha256 != plan.sha256
    assert Plan.model_validate_json(plan.model_dump_json()).sha256 == plan.sha256


def test_margins_are_points_of_the_figure_or_a_share_of_the_errors() -> None:
    assert Margin(points=0.2).of(0.9) == pytest.approx(0.002)
    assert Margin(relative=0.1).of(0.99) == pytest.approx(0.001)
    assert (str(Margin(points=0.2)), str(Margin(relative=0.1))) == (
        "0.2 points",
        "10 % of the errors",
    )


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (changed(reference="tvm"), "tvm:fp32 is not in the matrix"),
        (changed(margin=1), "reference, statistics, bench."),
        (protocol(margin={}), "either 'points' or 'relative'"),
        (protocol(margin={"points": 1, "relative": 1}), "either 'points' or 'relative'"),
        (protocol(margin={"points": 0}), "more than 0"),
        (protocol(margin={"point": 1}), "point: unknown setting; known: points, relative."),
        (protocol(margin=5), "margin must be a mapping of settings, not 5"),
        (protocol(primary="rank-1"), "no test of 'rank-1'"),
        (protocol(primary="tar@far=1e-05"), "far"),
        (protocol(settings={"rule": "interpolated"}), "at_most"),
        (protocol(settings={"fars": [0.1]}), "unknown setting"),
        (protocol(settings={"far": [2.0]}), "between 0 and 1"),
        (protocol(settings={"backend": "torch"}), "backend cannot be set"),
        (protocol(settings={"limit": 10}), "limit cannot be set"),
        (protocol(exclude=["onnxruntime"]), "cannot exclude onnxruntime:fp32"),
        (protocol(exclude=["tvm"]), "cannot exclude tvm"),
        (protocol(name="../x"), "names a folder"),
        (changed(protocols=BASE["protocols"] * 2), "a name of its own"),
        (changed(protocols=[]), "protocols must have at least 1, not 0."),
        (changed(models={}), "name models.recognition"),
        (
            changed(matrix={**BASE["matrix"], "include": ["torch"]}),
            "write backend:precision, such as torch:bf16, not 'torch'",
        ),
        (changed(matrix={**BASE["matrix"], "cells": {"tvm": {}}}), "in no row"),
        (changed(matrix={**BASE["matrix"], "precisions": ["fp8"]}), "fp32"),
        (changed(statistics={"level": 1.0}), "less than 1"),
        (changed(matrix={**BASE["matrix"], "cells": None}), "cells must be a mapping, not None"),
    ],
)
def test_a_wrong_plan_is_refused_with_the_place(
    tmp_path: Path, values: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=r"plan\.yaml") as caught:
        load_plan(written(tmp_path, values))
    assert named in str(caught.value)


def test_ready_plans_are_found_by_name_and_hold(tmp_path: Path) -> None:
    plan, name = find_plan("sample")
    assert (name, plan.reference_mode) == ("sample", Mode("onnxruntime", "fp32"))
    for file in plan.folder.glob("*.yaml"):
        load_plan(file)
    with pytest.raises(InputError, match=r"no plan 'samples'.*sample"):
        find_plan("samples")
    with pytest.raises(InputError, match="There is no plan"):
        find_plan(str(tmp_path / "none.yaml"))
