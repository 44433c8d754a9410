"""ONNX files as TVM takes them: operators that it would take for others are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

tvm = pytest.importorskip("tvm", reason="needs the tvm extra")
onnx = pytest.importorskip("onnx", reason="needs the test extra")

from onnx import helper  # noqa: E402
from tiny_network import Tiny, write_onnx  # noqa: E402

from evalkit.backends.base import SessionOptions  # noqa: E402
from evalkit.backends.tvm.backend import TvmBackend  # noqa: E402
from evalkit.backends.tvm.onnx import load_onnx, newest_opset  # noqa: E402
from evalkit.core.errors import InputError  # noqa: E402


def written(model: onnx.ModelProto, file: Path) -> Path:
    file.write_bytes(model.SerializeToString())
    return file


@pytest.mark.parametrize(
    ("domain", "kind", "refused"),
    [
        ("com.acme", "PRelu", True),
        ("com.acme", "QuantizeLinear", True),
        ("com.microsoft", "PRelu", True),
        ("com.microsoft", "QuantizeLinear", False),
        ("com.microsoft", "DequantizeLinear", False),
        ("ai.onnx", "PRelu", False),
    ],
)
def test_an_operator_of_another_domain_is_not_taken_for_onnxs_own(
    tiny: Tiny, tmp_path: Path, domain: str, kind: str, refused: bool
) -> None:
    held = onnx.load(write_onnx(tiny, tmp_path / "m.onnx"))
    (node,) = (node for node in held.graph.node if node.op_type == "PRelu")
    node.domain, node.op_type = domain, kind
    file = written(held, tmp_path / "foreign.onnx")
    if refused:
        with pytest.raises(InputError, match=rf"foreign\.onnx: node 'prelu' uses {domain}::{kind}"):
            TvmBackend.open(file, SessionOptions(threads=1))
    else:
        assert load_onnx(file) == held


def test_operators_of_other_domains_are_sought_in_branches(tiny: Tiny, tmp_path: Path) -> None:
    held = onnx.load(write_onnx(tiny, tmp_path / "m.onnx"))
    inner = helper.make_node("Clip", ["a"], ["b"], domain="com.acme")
    branch = helper.make_graph([inner], "branch", [], [])
    held.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=branch))
    with pytest.raises(InputError, match=r"node 'b' uses com\.acme::Clip"):
        load_onnx(written(held, tmp_path / "branch.onnx"))


def test_the_newest_opset_is_that_of_quantisation() -> None:
    from tvm.relax.frontend.onnx.onnx_frontend import DequantizeLinear

    assert newest_opset() >= 21
    assert hasattr(DequantizeLinear, "_impl_v21")
