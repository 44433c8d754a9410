"""External data of ONNX files: found without the onnx package, and proto to the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx", reason="needs the test extra")

from onnx import external_data_helper, helper, numpy_helper  # noqa: E402
from tiny_network import Tiny, batch, write_onnx  # noqa: E402

from evalkit.backends import BACKENDS  # noqa: E402
from evalkit.backends.base import SessionOptions  # noqa: E402
from evalkit.backends.onnx_files import (  # noqa: E402
    External,
    check_external_data,
    check_versions,
    external_data,
)
from evalkit.core.errors import InputError  # noqa: E402
from evalkit.run.models import model_sha256, weights_beside  # noqa: E402


@pytest.fixture
def model(tiny: Tiny, tmp_path: Path) -> Path:
    """A model whose weights lie beside it."""
    whole = onnx.load(write_onnx(tiny, tmp_path / "whole.onnx"))
    out = tmp_path / "model.onnx"
    onnx.save(whole, out, save_as_external_data=True, location="model.data", size_threshold=0)
    return out


def check_external(model: Path) -> None:
    check_external_data(model, model.read_bytes())


def renamed(model: Path, location: str) -> Path:
    proto = onnx.load(model, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    onnx.save(proto, model)
    return model


def test_it_finds_what_the_onnx_package_finds(model: Path) -> None:
    proto = onnx.load(model, load_external_data=False)
    expected = []
    for tensor in external_data_helper._get_all_tensors(proto):
        if external_data_helper.uses_external_data(tensor):
            info = external_data_helper.ExternalDataInfo(tensor)
            expected.append(External(info.location, info.offset, info.length))
    assert external_data(model) == expected
    assert len(expected) == 8
    assert weights_beside(model) == {model.with_name("model.data")}
    assert external_data(model.with_name("whole.onnx")) == []


def test_it_finds_tensors_in_attributes_and_subgraphs(tmp_path: Path, tiny: Tiny) -> None:
    def outside(name: str) -> onnx.TensorProto:
        tensor = numpy_helper.from_array(tiny.weights["fc.bias"], name)
        external_data_helper.set_external_data(tensor, location=f"{name}.data", length=20)
        tensor.ClearField("raw_data")
        return tensor

    constant = helper.make_node("Constant", [], ["c"], value=outside("constant"))
    branch = helper.make_graph([constant], "branch", [], [], [outside("inner")])
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    proto = helper.make_model(helper.make_graph([node], "g", [], []))
    function = proto.functions.add(name="f", domain="local")
    function.attribute_proto.append(helper.make_attribute("default", outside("default")))
    onnx.save(proto, tmp_path / "m.onnx")
    named = {data.location for data in external_data(tmp_path / "m.onnx")}
    assert named == {"constant.data", "inner.data", "default.data"}


def test_a_good_model_runs(model: Path, tiny: Tiny) -> None:
    pytest.importorskip("onnxruntime", reason="needs the cpu or gpu extra")
    from evalkit.backends.onnxruntime.backend import OnnxRuntimeBackend

    with OnnxRuntimeBackend.open(model, SessionOptions(threads=1)) as session:
        found = session.run(batch())["output0"]
    assert abs(found - tiny(batch())).max() < 1e-4


@pytest.mark.parametrize(
    "location",
    ["../secret", "sub/../../secret", "/etc/hostname", "..\\secret", "C:\\secret", "", "..", "."],
)
def test_a_name_that_leaves_the_folder_is_refused_before_loading(
    model: Path, location: str
) -> None:
    (model.parent.parent / "secret").write_bytes(bytes(9999))
    with pytest.raises(InputError, match="no path below its own folder"):
        check_external(renamed(model, location))
    assert weights_beside(model) == set()  # nor is it read for the model's hash
    model_sha256(model)


def test_the_runtime_never_sees_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ort = pytest.importorskip("onnxruntime", reason="needs the cpu or gpu extra")
    from evalkit.backends.onnxruntime.backend import OnnxRuntimeBackend

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the runtime was asked to load it")

    monkeypatch.setattr(ort, "InferenceSession", never)
    with pytest.raises(InputError, match="no path below"):
        OnnxRuntimeBackend.open(renamed(model, "../secret"), SessionOptions())


def test_missing_and_short_data_are_told(model: Path) -> None:
    data = model.with_name("model.data")
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"up to byte .*, but that file has"):
        check_external(model)
    data.unlink()
    with pytest.raises(InputError, match=r"model\.data is missing"):
        check_external(model)


def test_what_cannot_be_checked_is_not_loaded(model: Path) -> None:
    proto = onnx.load(renamed(model, "../secret"), load_external_data=False)
    proto.graph.initializer[0].external_data.add(key="offset", value="none")
    onnx.save(proto, model)
    with pytest.raises(InputError, match="is damaged"):
        check_external(model)
    model.write_bytes(model.read_bytes()[:-3])
    with pytest.raises(InputError, match="is damaged"):
        check_external(model)
    model.write_bytes(b"no protobuf at all")
    check_external(model)  # for the runtime to tell


def test_a_folder_below_is_fine(model: Path) -> None:
    (model.parent / "weights").mkdir()
    model.with_name("model.data").rename(model.parent / "weights" / "a..b.data")
    check_external(renamed(model, "weights/a..b.data"))


@settings(max_examples=200)
@given(noise=st.binary(max_size=200), at=st.integers(0, 400), cut=st.integers(0, 4000))
def test_damaged_files_are_left_to_the_runtime(
    noise: bytes, at: int, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    source = folder / "source.onnx"
    if not source.exists():
        onnx.save(
            onnx.load(write_onnx(Tiny.random(), folder / "whole.onnx")),
            source,
            save_as_external_data=True,
            location="source.data",
            size_threshold=0,
        )
    whole = source.read_bytes()
    (folder / "bad.onnx").write_bytes((whole[:at] + noise + whole[at:])[: max(cut, 1)])
    for data in external_data(folder / "bad.onnx"):
        assert isinstance(data, External)
    content = (folder / "bad.onnx").read_bytes()
    check_versions(folder / "bad.onnx", content, "Any", opset=2**70, ir=2**70)


def versioned(tiny: Tiny, path: Path, *, ir: int = 8, **opsets: int) -> Path:
    """Write a model of any versions; ``ai_onnx`` is the default domain's other name."""
    proto = onnx.load(write_onnx(tiny, path))
    proto.ir_version = ir
    proto.ClearField("opset_import")
    for domain, version in opsets.items():
        name = {"default": "", "ai_onnx": "ai.onnx"}.get(domain, domain)
        proto.opset_import.append(helper.make_opsetid(name, version))
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("versions", "told"),
    [
        ({"default": 17}, None),
        ({"default": 20, "ir": 9}, None),
        ({}, None),
        ({"default": 17, "foreign": 99}, None),
        ({"default": 21}, "is of ONNX opset 21, and Some 1.0 knows opsets up to 20;.* opset 20"),
        ({"default": 17, "ai_onnx": 21}, "opset 21"),
        ({"foreign": 1, "default": 99}, "opset 99"),
        ({"default": 17, "ir": 10}, "IR version 10, and Some 1.0 knows IR versions up to 9"),
    ],
)
def test_newer_versions_are_refused(
    tiny: Tiny, tmp_path: Path, versions: dict[str, int], told: str | None
) -> None:
    file = versioned(tiny, tmp_path / "model.onnx", **versions)
    if told is None:
        check_versions(file, file.read_bytes(), "Some 1.0", opset=20, ir=9)
    else:
        with pytest.raises(InputError, match=rf"model\.onnx {told}" if "is of" in told else told):
            check_versions(file, file.read_bytes(), "Some 1.0", opset=20, ir=9)


@pytest.mark.parametrize("backend", ["openvino", "tvm"])
@pytest.mark.parametrize("versions", [{"default": 99}, {"default": 17, "ir": 99}])
def test_runtimes_that_do_not_look_at_versions_never_see_them(
    tiny: Tiny, tmp_path: Path, backend: str, versions: dict[str, int]
) -> None:
    pytest.importorskip(backend, reason=f"needs the {backend} extra")
    file = versioned(tiny, tmp_path / "model.onnx", **versions)
    with pytest.raises(InputError, match=r"model\.onnx is of ONNX .* 99, and .* knows .*Export it"):
        BACKENDS.get(backend).open(file, SessionOptions(threads=1))
