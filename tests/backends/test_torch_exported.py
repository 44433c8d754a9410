"""Exported programs are checked before PyTorch reads them."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from evalkit.backends.base import SessionOptions  # noqa: E402
from evalkit.backends.torch.backend import TorchBackend  # noqa: E402
from evalkit.backends.torch.exported import is_pure_operator  # noqa: E402
from evalkit.core.errors import InputError  # noqa: E402

ONE = SessionOptions(threads=1)
Graph = dict[str, Any]


class Adds(torch.nn.Module):  # type: ignore[misc]
    """A network with a factory function, which an attack replaces."""

    def forward(self, x: Any) -> Any:
        """Add nothing to the mean of each channel."""
        return x.mean((2, 3)) + torch.full((4,), 0.0).sum()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    exported = torch.export.export(Adds().eval(), (torch.zeros(1, 3, 8, 8),))
    torch.export.save(exported, tmp_path / "m.pt2")
    return tmp_path / "m.pt2"


def edited(source: Path, change: Callable[[Graph], None], rename: str = "model.json") -> Path:
    """Change the JSON of a program, and perhaps its name in the archive."""
    target = source.with_name("evil.pt2")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("models/model.json"):
                document = json.loads(content)
                change(document)
                content = json.dumps(document).encode()
                name = name.replace("model.json", rename)  # noqa: PLW2901
            new.writestr(name, content)
    return target


def factory(document: Graph) -> Graph:
    nodes = document["graph_module"]["graph"]["nodes"]
    (found,) = (node for node in nodes if "aten.full" in node["target"])
    return found  # type: ignore[no-any-return]


def argument(name: str, **value: Any) -> Graph:
    return {"name": name, "arg": value, "kind": 1}


def maps_a_file(document: Graph, mark: Path) -> None:
    factory(document).update(
        target="torch.ops.aten.from_file.default",
        inputs=[
            argument("filename", as_string=str(mark)),
            argument("shared", as_bool=True),
            argument("size", as_int=4),
        ],
    )


def test_a_good_program_runs(program: Path) -> None:
    with TorchBackend.open(program, ONE) as session:
        values = session.run(np.ones((1, 3, 8, 8), np.float32))
    np.testing.assert_allclose(values["output0"], 1, atol=1e-6)


@pytest.mark.parametrize("member", ["model.json", "model.JSON", "model.text"])
def test_a_program_that_maps_a_file_is_never_loaded(program: Path, member: str) -> None:
    mark = program.with_name("mark")
    file = edited(program, lambda document: maps_a_file(document, mark), member)
    with pytest.raises(InputError, match=r"evil\.pt2: .*aten\.from_file.*never loaded"):
        TorchBackend.open(file, ONE)
    assert not mark.exists()


def test_a_program_that_writes_a_file_is_never_loaded(program: Path) -> None:
    mark = program.with_name("mark")

    def change(document: Graph) -> None:
        nodes = document["graph_module"]["graph"]["nodes"]
        made = nodes[0]["outputs"][0]["as_tensor"]["name"]
        inputs = [
            argument("item", as_tensor={"name": made}),
            argument("filename", as_string=str(mark)),
        ]
        saves = {"target": "torch.ops.aten.save.default", "inputs": inputs, "outputs": []}
        nodes.insert(1, {**saves, "metadata": {}})

    with pytest.raises(InputError, match=r"aten\.save\.default"):
        TorchBackend.open(edited(program, change), ONE)
    assert not mark.exists()


def test_operators_are_sought_in_nested_graphs_and_arguments(program: Path) -> None:
    nested = {"nodes": [{"target": "torch.ops.aten.from_file.default", "inputs": []}]}
    for value in (
        {"as_graph": {"name": "g", "graph": nested}},
        {"as_operator": "torch.ops.aten.from_file.default"},
    ):
        file = edited(program, lambda d, v=value: factory(d)["inputs"].append(argument("g", **v)))
        with pytest.raises(InputError, match=r"from_file"):
            TorchBackend.open(file, ONE)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(guards_code=["__import__('os').mkdir('mark') is None"]),
        lambda d: d["graph_module"]["graph"]["nodes"][0].update(name="a = open('mark', 'w'); b"),
        lambda d: d["graph_module"]["module_call_graph"][0]["signature"].update(
            forward_arg_names=["x=open('mark', 'w')"]
        ),
        lambda d: d["graph_module"]["module_call_graph"][0]["signature"].update(
            in_spec='[1, {"type": "builtins.dict", "context": "[\\"a=open(1)\\"]", '
            '"children_spec": []}]'
        ),
        lambda d: d["graph_module"]["module_call_graph"][0]["signature"].update(
            in_spec='[1, {"type": "builtins.list", "context": "{\\"__enum__\\": true, '
            '\\"fqn\\": \\"antigravity:x\\"}", "children_spec": []}]'
        ),
        lambda d: factory(d)["inputs"].append(argument("m", as_string="'+open('mark')+'")),
        lambda d: factory(d)["inputs"].append(argument("m", as_float="open('mark')")),
        lambda d: d["range_constraints"].update({"open('mark')": {}}),
    ],
)
def test_texts_that_would_become_code_are_refused(
    program: Path, change: Callable[[Graph], None]
) -> None:
    with pytest.raises(InputError, match="no plain name and could run code"):
        TorchBackend.open(edited(program, change), ONE)


def test_real_guards_are_let_through(program: Path) -> None:
    guards = ["L['x'].size()[0] >= 1", "Mod(L['x'].size()[2], 2) == 0", "L['args'][0].dim != 1"]
    with TorchBackend.open(edited(program, lambda d: d.update(guards_code=guards[:2])), ONE):
        pass
    with pytest.raises(InputError, match="guards_code"):
        TorchBackend.open(edited(program, lambda d: d.update(guards_code=guards)), ONE)


@pytest.mark.parametrize("folder", ["data/aotinductor/model/a.cpp", "data/constants/custom_obj_0"])
def test_members_that_are_code_are_refused(program: Path, folder: str) -> None:
    with zipfile.ZipFile(program, "a") as archive:
        archive.writestr(f"{archive.namelist()[0].partition('/')[0]}/{folder}", "code")
    with pytest.raises(InputError, match="could run code when loaded"):
        TorchBackend.open(program, ONE)


def test_no_operator_that_is_let_through_takes_a_file() -> None:
    for schema in torch._C._jit_get_all_schemas():
        space, _, name = schema.name.partition("::")
        target = f"torch.ops.{space}.{name}.{schema.overload_name or 'default'}"
        texts = (a.name for a in schema.arguments if "str" in str(a.type))
        takes = {name for name in texts if re.search("file|path|dir$|url", name)}
        if takes and is_pure_operator(target):
            pytest.fail(f"{schema} takes {takes}")


@pytest.mark.parametrize(
    ("target", "pure"),
    [
        ("torch.ops.aten.conv2d.default", True),
        ("torch.ops.aten.__and__.Tensor", True),
        ("torch.ops.quantized_decomposed.quantize_per_tensor.default", True),
        ("torch.ops.higher_order.wrap_with_set_grad_enabled", True),
        ("torch.sym_max", True),
        ("_operator.floordiv", True),
        ("math.trunc", True),
        ("torch.ops.aten.save.__call__", False),
        ("torch.ops.aten.add.__class__", False),
        ("torch.ops.aten.__init__.default", False),
        ("torch.ops.aten.from_file.out", False),
        ("torch.ops.debugprims.load_tensor.default", False),
        ("torch.ops.load_library", False),
        ("torch.ops.higher_order.call_torchbind", False),
        ("torch.load", False),
        ("torch.hub.load", False),
        ("_operator.methodcaller", False),
        ("_operatorx.methodcaller", False),
        ("math.__loader__.load_module", False),
        ("#extension:op", False),
        ("builtins.eval", False),
        ("torch.ops.aten.conv2d.default\n", False),
    ],
)
def test_pure_operators(target: str, pure: bool) -> None:
    assert is_pure_operator(target) is pure
