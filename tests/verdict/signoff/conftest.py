"""A tiny network in two precisions, tiny samples, and sign-offs of them by the command line."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from evalkit.cli import main
from evalkit.datasets.sample import write_sample
from evalkit.verdict.signoff.record import Signoff, load_signoff

SignOff = Callable[..., tuple[int, Signoff]]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
    for name in ("EVALKIT_DATA", "GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def tiny_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_sample("lfw", tmp_path_factory.mktemp("sample") / "lfw", size="tiny")
    return folder if folder.is_file() else next(folder.glob("*.bin"))


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a model's YAML: patches averaged and mixed, in fp32, fp16 and a ruined fp16."""
    pytest.importorskip("onnx", reason="makes the networks")
    pytest.importorskip("onnxruntime", reason="runs them")
    folder = tmp_path_factory.mktemp("models")
    for name, kind, noise in (("fp32", 1, 0.0), ("fp16", 10, 0.0), ("ruined", 10, 9.0)):
        _write_network(folder / f"{name}.onnx", kind, noise)
    files = {"onnxruntime:fp32": "fp32.onnx", "onnxruntime:fp16": "fp16.onnx"}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({"name": "tiny", "files": files}))
    return path


def _write_network(path: Path, kind: int, noise: float) -> None:
    import onnx
    from onnx import helper, numpy_helper

    weights = np.random.default_rng(1).normal(size=(192, 32))
    weights += np.random.default_rng(2).normal(0, noise, weights.shape)
    dtype = np.float32 if kind == 1 else np.float16
    nodes = [
        helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[14, 14], strides=[14, 14]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Cast", ["f"], ["h"], to=kind),
        helper.make_node("MatMul", ["h", "w"], ["m"]),
        helper.make_node("Cast", ["m"], ["y"], to=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", 1, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("y", 1, ["n", 32])],
        [numpy_helper.from_array(weights.astype(dtype), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)


@pytest.fixture(scope="session")
def base(network: Path, tiny_pairs: Path) -> dict[str, Any]:
    """A plan of two modes that pass on a tiny set, given its wide margin."""
    return {
        "name": "tiny",
        "models": {"recognition": str(network)},
        "protocols": [
            {
                "name": "pairs",
                "kind": "lfw",
                "data": str(tiny_pairs),
                "primary": "accuracy/exact",
                "margin": {"points": 20},
            }
        ],
        "matrix": {"backends": ["onnxruntime"], "precisions": ["fp32", "fp16"]},
        "reference": "onnxruntime",
    }


@pytest.fixture
def plan(base: dict[str, Any]) -> dict[str, Any]:
    """A copy of the plan, to be changed."""
    return copy.deepcopy(base)


@pytest.fixture(scope="session")
def done(base: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the plan's cells have run."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "plan.yaml").write_text(yaml.safe_dump(base))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVALKIT_CACHE", str(folder / "cache"))
        out = folder / "out"
        assert main(["signoff", str(folder / "plan.yaml"), "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture
def signoff(tmp_path: Path) -> SignOff:
    """Run ``evalkit signoff`` on a plan in ``out`` and return its exit code and record."""

    def run(plan: dict[str, Any], *options: str) -> tuple[int, Signoff]:
        path = tmp_path / "plan.yaml"
        path.write_text(yaml.safe_dump(plan))
        code = main(["signoff", str(path), "--out", str(tmp_path / "out"), "--quiet", *options])
        return code, load_signoff(tmp_path / "out" / "signoff.json")

    return run


@pytest.fixture
def resumed(signoff: SignOff, done: Path, tmp_path: Path) -> SignOff:
    """Do the same in a copy of the folder where the plan's cells have run."""
    shutil.copytree(done, tmp_path / "out")
    return signoff
