"""MXNet in an interpreter of its own: the contract, refusals, independent figures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mxnet_files import parameters, symbol, write_mxnet, write_params
from tiny_network import SIDE, Tiny, batch

from evalkit.backends import environments
from evalkit.backends.base import Backend, SessionOptions
from evalkit.backends.mxnet.backend import MxnetBackend, _names_that_numpy_dropped
from evalkit.backends.mxnet.network import find_files
from evalkit.backends.worker.session import isolated
from evalkit.cli import main
from evalkit.core.errors import InputError, UnavailableError
from evalkit.testing import BackendContract

IMAGE = (3, SIDE, SIDE)
ONE = SessionOptions(threads=1, image=IMAGE)
NAMED = os.environ.get("EVALKIT_MXNET_PYTHON")


def needs_mxnet(test: Any) -> Any:
    """Mark a test that starts MXNet, which alone takes more than a second."""
    reason = "EVALKIT_MXNET_PYTHON names no interpreter (evalkit env create mxnet)"
    return pytest.mark.slow(pytest.mark.skipif(NAMED is None, reason=reason)(test))


@pytest.fixture(scope="module")
def there() -> type[Backend]:
    return isolated("mxnet", str(NAMED))


@needs_mxnet
class TestMxnet(BackendContract):
    backend = isolated("mxnet", str(NAMED))
    options = ONE

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path) -> None:
        cls.model = write_mxnet(tiny, models)
        cls.batch = batch()
        cls.reference = {"fc_output": tiny(cls.batch)}


@needs_mxnet
def test_shapes_record_and_all_names_of_a_model(
    tiny: Tiny, tmp_path: Path, there: type[Backend]
) -> None:
    file = write_mxnet(tiny, tmp_path)
    wanted = tiny(batch(3))
    for name in (file, tmp_path / "tiny-0000.params", tmp_path / "tiny"):
        with there.open(name, ONE) as session:
            (given,), (made,) = session.inputs, session.outputs
            assert (given.name, given.shape) == ("data", (None, *IMAGE))
            assert (made.name, made.shape) == ("fc_output", (None, 5))
            assert session.ran.precision_ran == "fp32"
            assert session.ran.details["heavy_kernels_by_precision"] == {"fp32": 2}
            assert session.ran.details["interpreter"]["path"] == NAMED
            for count in (1, 2, 3, 1, 4, 5, 6, 3):  # more shapes than are kept
                out = session.run(batch(3)[np.arange(count) % 3])["fc_output"]
                np.testing.assert_allclose(out, wanted[np.arange(count) % 3], rtol=1e-4, atol=1e-5)


def _without_head() -> dict[str, Any]:
    graph = symbol()
    flat = next(i for i, node in enumerate(graph["nodes"]) if node["op"] == "Flatten")
    return {**graph, "heads": [[flat - 1, 0, 0]]}


@needs_mxnet
def test_a_network_without_products_of_fixed_size_takes_any_size(
    tiny: Tiny, tmp_path: Path, there: type[Backend]
) -> None:
    file = tmp_path / "open-symbol.json"
    file.write_text(json.dumps(_without_head()))
    held = {k: v for k, v in parameters(tiny).items() if "fc" not in k}
    write_params(held, tmp_path / "open-0000.params")
    with there.open(file, ONE) as session:
        assert session.inputs[0].shape == (None, 3, None, None)
        assert session.outputs[0].shape == (None, 4, None, None)
        for side in (16, 32, 16):
            images = np.ones((1, 3, side, side), np.float32)
            assert session.run(images)["prelu_output"].shape == (1, 4, side // 2, side // 2)


def _renamed(old: str, new: str) -> Any:
    return lambda held: {k.replace(old, new): v for k, v in held.items()}


BAD_PARAMETERS = {
    "lacks one": (lambda h: {k: v for k, v in h.items() if k != "arg:fc_weight"}, "2 of the sym"),
    "lacks a state": (lambda h: {k: v for k, v in h.items() if "mean" not in k}, "no bn_moving"),
    "one too many": (lambda h: {**h, "arg:fc7_weight": np.ones(3, np.float32)}, "fc7_weight"),
    "of another": (_renamed("fc_", "fc1_"), "does not know"),
    "of other shape": (lambda h: {**h, "arg:bn_gamma": np.ones(7, np.float32)}, "bn_gamma should"),
    "no names of kinds": (_renamed(":", "-"), "tiny-0000.params holds no "),
    "fp16": (lambda h: {k: v.astype(np.float16) for k, v in h.items()}, "fp16 parameters"),
    "with the image": (lambda h: {**h, "arg:data": np.ones((1, *IMAGE), np.float32)}, "0 of the"),
}


@needs_mxnet
@pytest.mark.parametrize("case", BAD_PARAMETERS)
def test_parameters_of_another_symbol_are_refused(
    case: str, tiny: Tiny, tmp_path: Path, there: type[Backend]
) -> None:
    file = write_mxnet(tiny, tmp_path)
    change, told = BAD_PARAMETERS[case]
    write_params(change(parameters(tiny)), tmp_path / "tiny-0000.params")
    with pytest.raises(InputError, match=told):
        there.open(file, ONE)


@needs_mxnet
def test_only_lists_of_arrays_are_read(tiny: Tiny, tmp_path: Path, there: type[Backend]) -> None:
    file = write_mxnet(tiny, tmp_path)
    held = tmp_path / "tiny-0000.params"
    whole = held.read_bytes()
    for content in (b"\x80\x04.", b"PK\x03\x04" + whole, whole[:300], whole[:-5], whole[:8]):
        held.write_bytes(content)
        with pytest.raises(InputError, match=r"tiny-0000\.params"):
            there.open(file, ONE)


@needs_mxnet
def test_symbols_that_mxnet_cannot_read_are_refused(
    tiny: Tiny, tmp_path: Path, there: type[Backend]
) -> None:
    file = write_mxnet(tiny, tmp_path)
    unknown = symbol()
    unknown["nodes"][-1]["op"] = "Frobnicate"
    for content in ("[]", "{}", "{", "[" * 100_000, json.dumps(unknown)):
        file.write_text(content)
        with pytest.raises(InputError, match=r"tiny-symbol\.json.*MXNet 1\.9"):
            there.open(file, ONE)


@needs_mxnet
def test_precisions_are_those_of_the_symbol(
    tiny: Tiny, tmp_path: Path, there: type[Backend]
) -> None:
    file = write_mxnet(tiny, tmp_path)
    with pytest.raises(InputError, match="built in fp32, but int8"):
        there.open(file, SessionOptions("int8", threads=1, image=IMAGE))
    with pytest.raises(UnavailableError, match="does not run fp16"):
        there.open(file, SessionOptions("fp16", threads=1, image=IMAGE))


def test_names_that_numpy_dropped_are_there_for_the_import_alone() -> None:
    before = dict(vars(np))
    with _names_that_numpy_dropped():
        names = vars(np).keys()
        assert {"bool", "PZERO", "NaN", "alltrue", "product", "mirr"} <= names
    assert vars(np).keys() == before.keys()
    assert all(vars(np)[name] is before[name] for name in before)


def test_files_are_found_by_any_of_their_names(tmp_path: Path) -> None:
    for name in ("a-symbol.json", "a-0007.params", "ab-symbol.json", "ab-0000.params"):
        (tmp_path / name).write_text("x")
    pair = tmp_path / "a-symbol.json", tmp_path / "a-0007.params"
    for name in ("a-symbol.json", "a-0007.params", "a"):
        assert find_files(tmp_path / name) == pair
    (tmp_path / "a-0008.params").write_text("x")
    with pytest.raises(InputError, match=r"several.*a-0007\.params, a-0008\.params"):
        find_files(pair[0])
    assert find_files(tmp_path / "a-0008.params")[1].name == "a-0008.params"
    (tmp_path / "ab-0000.params").unlink()
    with pytest.raises(InputError, match=r"needs .*ab-0000\.params"):
        find_files(tmp_path / "ab")
    with pytest.raises(InputError, match=r"c-symbol\.json"):
        find_files(tmp_path / "c-0000.params")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


@pytest.mark.usefixtures("absent")
def test_where_mxnet_is_not_the_remedy_is_told(cache: Path, tmp_path: Path) -> None:
    probe = MxnetBackend.probe()
    assert not probe.available
    assert "evalkit env create mxnet" in probe.remedy
    assert "--python" in probe.remedy
    with pytest.raises(UnavailableError, match="env create mxnet"):
        MxnetBackend.open(tmp_path / "x-symbol.json", ONE)


@needs_mxnet
@pytest.mark.usefixtures("absent")
def test_the_environment_that_evalkit_made_is_used_and_told(
    cache: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = environments.folder_of("mxnet")
    folder.parent.mkdir()
    folder.symlink_to(Path(str(NAMED)).parents[1])
    monkeypatch.setattr(environments, "state", lambda *_: "ready")
    with MxnetBackend.open(write_mxnet(tiny, cache), ONE) as session:
        assert str(folder) in session.ran.notes[-1]


def y1(shared_data: Path, folder: Path) -> Path:
    file = folder / "y1.yaml"
    models = shared_data / "models"
    file.write_text(
        f"name: y1\nfiles: {{mxnet: {models}/y1-symbol.json, onnxruntime: {models}/y1.onnx}}\n"
        f"input: {{mean: 0, std: 1}}\nruntime: {{python: {NAMED}}}\n"
    )
    return file


@needs_mxnet
def test_y1_agrees_with_its_onnx_form(shared_data: Path, there: type[Backend]) -> None:
    ort = pytest.importorskip("evalkit.backends.onnxruntime.backend", reason="needs onnxruntime")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 112, 112)).astype(np.float32)
    models, options = shared_data / "models", SessionOptions(image=(3, 112, 112))
    with there.open(models / "y1-symbol.json", options) as session:
        (given,) = session.run(pixels).values()
        assert session.inputs[0].shape == (None, 3, 112, 112)
    with ort.OnnxRuntimeBackend.open(models / "y1.onnx", options) as session:
        (wanted,) = session.run(pixels).values()
    assert np.abs(given - wanted).max() <= 1e-6 + 1e-3 * np.abs(wanted).max()


@needs_mxnet
def test_independent_verification_figures(shared_data: Path, cache: Path) -> None:
    """Of the set whose accuracy does not saturate."""
    out = cache / "result.json"
    words = ["lfw", "--data", str(shared_data / "congress" / "cong_lo.bin"), "--backend", "mxnet"]
    model = str(y1(shared_data, cache))
    assert main([*words, "--model", model, "--output", str(out), "--quiet"]) == 0
    result = json.loads(out.read_text())
    (rule,) = (held for held in result["metrics"] if held["name"] == "accuracy/insightface")
    assert rule["value"] == pytest.approx(0.97955, abs=5e-6)
    assert rule["at"]["population_std"] == pytest.approx(0.02581, abs=5e-6)
    assert rule["at"]["distance"] == pytest.approx(1.501, abs=5e-4)
    assert result["ran"]["precision_ran"] == "fp32"
    assert result["ran"]["details"]["interpreter"]["path"] == NAMED
