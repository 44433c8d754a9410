"""PyTorch's lower precisions: what is built runs as what it says, and stays close to fp32."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")

from torch import nn  # noqa: E402

from evalkit.backends.base import Precision, SessionOptions  # noqa: E402
from evalkit.backends.torch.backend import TorchBackend  # noqa: E402
from evalkit.backends.torch.int8 import saturates, why_not_int8  # noqa: E402
from evalkit.convert.base import ConvertSettings  # noqa: E402
from evalkit.convert.torch.converter import TorchConverter  # noqa: E402
from evalkit.core.errors import InputError, UnavailableError  # noqa: E402
from evalkit.testing import BackendContract  # noqa: E402

SIDE = 16
SHAPE = (1, 3, SIDE, SIDE)
FORMS = ("torchscript", "exported", "weights")
needs_compiler = pytest.mark.skipif(bool(why_not_int8()), reason=why_not_int8())


class Face(nn.Module):
    """Convolutions with BatchNorm and PReLU, a residual sum, an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.prelu = nn.PReLU(16)
        self.body = nn.Conv2d(16, 16, 3, 1, 1, bias=False)
        self.fc = nn.Linear(16 * (SIDE // 2) ** 2, 32)

    def forward(self, x: Any) -> Any:
        x = self.prelu(self.bn(self.stem(x)))
        return self.fc((x + self.body(x)).flatten(1))


def face() -> nn.Module:
    torch.manual_seed(0)
    net = Face().eval()
    nn.init.uniform_(net.bn.running_mean, -0.2, 0.2)
    nn.init.uniform_(net.bn.running_var, 0.5, 1.5)
    return net


def faces(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, 3, SIDE, SIDE)).astype(np.float32)


CALIBRATION = [faces(8, seed) for seed in range(1, 5)]


def write(form: str, path: Path) -> Path:
    net, example = face(), torch.from_numpy(faces(2))
    if form == "torchscript":
        torch.jit.save(torch.jit.trace(net, example), path)
    elif form == "exported":
        shapes = ({0: torch.export.Dim("n")},)
        torch.export.save(torch.export.export(net, (example,), dynamic_shapes=shapes), path)
    return path


def settings(precision: Precision, **changes: Any) -> ConvertSettings:
    return replace(ConvertSettings(precision, threads=1, shape=SHAPE), **changes)


def options(precision: Precision) -> SessionOptions:
    return SessionOptions(precision, threads=1, image=SHAPE[1:])


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def expected(images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return face()(torch.from_numpy(images)).numpy()


def simulated(file: Path, images: np.ndarray) -> np.ndarray:
    """The quantised program run as it stands: what it means, in fp32."""
    import torch.ao.quantization.fx._decomposed

    with torch.inference_mode():
        return torch.export.load(file).module()(torch.from_numpy(images)).numpy()


@pytest.fixture(autouse=True, scope="module")
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Keeps what is compiled out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield


@pytest.fixture(scope="module")
def int8_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torchao", reason="needs the convert extra")
    folder = tmp_path_factory.mktemp("int8")
    out = folder / "face-int8.pt"
    TorchConverter.build(write("exported", folder / "face.pt2"), out, settings("int8"), CALIBRATION)
    return out


@needs_compiler
@pytest.mark.slow
class TestInt8Contract(BackendContract):
    """A rounding at the edge of a step moves an output by about a step."""

    backend = TorchBackend
    options = options("int8")
    rtol = 3e-2

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, int8_file: Path) -> None:
        cls.model = int8_file
        cls.batch = faces(4)
        cls.reference = {"output0": expected(cls.batch)}


@pytest.fixture(scope="session")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Any], Path]:
    """Convert once a form and precision."""
    folder = tmp_path_factory.mktemp("cast")

    @cache
    def convert(form: str, precision: Any) -> Path:
        out = folder / f"{form}-{precision}.pt"
        source = write(form, folder / f"{form}.pt")
        TorchConverter.build(source, out, settings(precision), None)
        return out

    return convert


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torchscript", "exported"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
class TestCastContract(BackendContract):
    backend = TorchBackend
    rtol = 3e-2

    @pytest.fixture(autouse=True)
    def files(self, cast: Callable[[str, Any], Path], form: str, precision: Any) -> None:
        self.model = cast(form, precision)
        self.options = options(precision)
        self.batch = faces(4)
        self.reference = {"output0": expected(self.batch)}


@needs_compiler
@pytest.mark.slow
def test_int8_kernels_run_and_follow_the_quantised_program(int8_file: Path) -> None:
    images = faces(16, 9)
    with TorchBackend.open(int8_file, options("int8")) as session:
        ours = session.run(images)["output0"]
        assert session.ran.precision_ran == "int8"
        assert session.ran.details["heavy_kernels_by_precision"] == {"int8": 3}
        assert session.ran.notes == ()
        assert session.inputs[0].batch is None
    assert cosines(ours, expected(images)).min() > 0.995
    assert np.abs(ours - expected(images)).max() > 1e-4, "int8 would round"
    meant = simulated(int8_file, images)
    assert cosines(ours, meant).min() > 0.9995
    assert np.abs(ours - meant).max() < 0.02 * np.abs(meant).max()


def test_int8_file_holds_no_float_weights_and_no_pickle(int8_file: Path) -> None:
    with zipfile.ZipFile(int8_file) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    weights = sum(size for name, size in sizes.items() if "/weights/weight_" in name)
    multiplied = sum(p.numel() for p in face().parameters() if p.ndim > 1)
    assert multiplied <= weights < 1.3 * multiplied
    assert sum(size for name, size in sizes.items() if "sample_inputs" in name) < 2000


class Payload:
    """A pickle that would leave a mark on disk."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@needs_compiler
def test_pickled_code_in_an_int8_file_is_never_run(int8_file: Path, tmp_path: Path) -> None:
    mark, payload, evil = tmp_path / "mark", tmp_path / "payload", tmp_path / "evil.pt"
    torch.save(Payload(mark), payload)
    with zipfile.ZipFile(int8_file) as old, zipfile.ZipFile(evil, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("model_weights_config.json"):
                content = content.replace(b'"use_pickle": false', b'"use_pickle": true')
            new.writestr(name, payload.read_bytes() if name.endswith("weight_0") else content)
    with pytest.raises(InputError, match="pickled object"):
        TorchBackend.open(evil, options("int8"))
    assert not mark.exists()


def test_without_a_compiler_int8_is_refused(
    int8_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "int8" not in TorchBackend.probe().precisions
    with pytest.raises(UnavailableError, match=r"no-such-compiler.*simulated.*apt-get install"):
        TorchBackend.open(int8_file, options("int8"))


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({"avx512_vnni": True, "avx_vnni": False}, False),
        ({"avx512_vnni": False, "avx_vnni": False}, True),
        ({}, False),
    ],
)
def test_cpus_whose_products_saturate(
    monkeypatch: pytest.MonkeyPatch, held: dict[str, bool], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: held, raising=False)
    assert saturates() is expected


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_int8_file_is_nothing_else(int8_file: Path, precision: Any) -> None:
    with pytest.raises(InputError, match=f"int8 operators; {precision} would be a label only"):
        TorchBackend.open(int8_file, options(precision))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("form", ["torchscript", "weights"])
def test_int8_from_every_form(tmp_path: Path, form: str, architecture: str) -> None:
    pytest.importorskip("torchao", reason="needs the convert extra")
    source, out = write(form, tmp_path / "face.pt"), tmp_path / "int8.pt"
    if form == "weights":
        torch.save(face().state_dict(), source)
    TorchConverter.build(source, out, settings("int8", architecture=architecture), CALIBRATION)
    with TorchBackend.open(out, options("int8")) as session:
        assert session.ran.precision_ran == "int8"
        assert session.inputs[0].shape[1:] == SHAPE[1:]
        assert cosines(session.run(faces(8))["output0"], expected(faces(8))).min() > 0.995


@pytest.fixture
def architecture() -> Any:
    from evalkit.backends.architectures import ARCHITECTURES

    ARCHITECTURES.register("face", f"{__name__}:FaceArchitecture", origin="the tests")
    yield "face"
    ARCHITECTURES._entries.pop("face")


def __getattr__(name: str) -> Any:
    """The registry's base class is imported where it is asked for."""
    if name != "FaceArchitecture":
        raise AttributeError(name)
    from evalkit.backends.architectures.base import Architecture

    members = {"input_shape": SHAPE[1:], "build": classmethod(lambda cls, weights: Face())}
    return type(name, (Architecture,), members)


@needs_compiler
@pytest.mark.slow
def test_excluded_layers_stay_fp32(tmp_path: Path) -> None:
    pytest.importorskip("torchao", reason="needs the convert extra")
    source, out = write("exported", tmp_path / "face.pt2"), tmp_path / "int8.pt"
    TorchConverter.build(source, out, settings("int8", exclude=("stem", "fc")), CALIBRATION)
    with TorchBackend.open(out, options("int8")) as session:
        assert session.ran.precision_ran == "int8 (1 of 3 kernels; 2 fp32)"


@pytest.mark.parametrize("form", ["torchscript", "exported"])
def test_layers_are_named_by_their_weights(tmp_path: Path, form: str) -> None:
    source = write(form, tmp_path / "face.pt")
    assert TorchConverter.layers(source, settings("int8")) == ("stem", "body", "fc")
    assert TorchConverter.layers(source, settings("fp16")) == ()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("precision", "stored"), [("fp16", "float16"), ("bf16", "bfloat16")])
def test_casting(tmp_path: Path, form: str, architecture: str, precision: Any, stored: str) -> None:
    source, out = write(form, tmp_path / "face.pt"), tmp_path / "cast.pt"
    if form == "weights":
        torch.save(face().state_dict(), source)
    TorchConverter.build(source, out, settings(precision, architecture=architecture), None)
    low = replace(options(precision), architecture=architecture)
    with TorchBackend.open(out, low) as session:
        ours = session.run(faces(8))["output0"]
        assert session.ran.precision_ran == precision
        held = session.ran.details["stored_dtypes"]
        assert held[stored] >= 3
        assert (precision == "bf16") == ("float32" in held)
    assert out.stat().st_size < source.stat().st_size
    if form != "exported":
        with TorchBackend.open(source, low) as session:
            assert np.array_equal(session.run(faces(8))["output0"], ours)
    worst = np.abs(ours - expected(faces(8))).max() / np.abs(ours).max()
    assert 1e-6 < worst < {"fp16": 3e-3, "bf16": 3e-2}[precision]
    with pytest.raises(InputError, match="fp32 would be a label only"):
        TorchBackend.open(out, replace(low, precision="fp32"))


def test_what_is_low_already_is_refused(tmp_path: Path, int8_file: Path) -> None:
    with pytest.raises(InputError, match="int8 operators: it is low already"):
        TorchConverter.build(int8_file, tmp_path / "out.pt", settings("fp16"), None)
    half = tmp_path / "half.pt"
    TorchConverter.build(write("exported", tmp_path / "f.pt2"), half, settings("fp16"), None)
    with pytest.raises(InputError, match="float16 parameters: it is low already"):
        TorchConverter.build(half, tmp_path / "out.pt", settings("int8"), CALIBRATION)


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = 0
        while bool(x.sum() > count):
            count += 1
        return x.flatten(1) * count


def test_torchscript_that_cannot_be_exported_says_what_can(tmp_path: Path) -> None:
    source = tmp_path / "loop.pt"
    torch.jit.save(torch.jit.script(Branches().eval()), source)
    with pytest.raises(InputError, match=r"cannot turn into an exported program.*state dict"):
        TorchConverter.layers(source, settings("int8"))


def legacy(net: nn.Module, path: Path) -> np.ndarray:
    """Quantise by FX as a user would, write TorchScript, and return its embeddings."""
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    prepared = prepare_fx(net, get_default_qconfig_mapping("x86"), (torch.from_numpy(faces(2)),))
    for batch in CALIBRATION:
        prepared(torch.from_numpy(batch))
    quantised = convert_fx(prepared)
    torch.jit.save(torch.jit.trace(quantised, torch.from_numpy(faces(2))), path)
    with torch.inference_mode():
        return quantised(torch.from_numpy(faces(16, 9))).numpy()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_legacy_quantised_prelu_is_wrong_and_refused(tmp_path: Path) -> None:
    """Both are int8 of the same network; only the legacy one has lost it."""
    net = face()
    nn.init.constant_(net.prelu.weight, 0.25)
    with torch.inference_mode():
        wanted = net(torch.from_numpy(faces(16, 9))).numpy()
    spoilt = cosines(legacy(net, tmp_path / "fx.pt"), wanted)
    assert spoilt.mean() < 0.9
    for precision in ("int8", "fp32"):
        with pytest.raises(InputError, match=r"quantized::prelu.*wrong.*evalkit convert"):
            TorchBackend.open(tmp_path / "fx.pt", options(precision))


@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_legacy_quantised_network_without_prelu_runs_as_int8(tmp_path: Path) -> None:
    net = face()
    net.prelu = nn.ReLU().eval()
    wanted = legacy(net, tmp_path / "fx.pt")
    with TorchBackend.open(tmp_path / "fx.pt", options("int8")) as session:
        assert session.ran.precision_ran == "int8"
        assert "withdrawn" in session.ran.notes[0]
        assert np.abs(session.run(faces(16, 9))["output0"] - wanted).max() < 0.05
    with pytest.raises(InputError, match="fp32 would be a label only"):
        TorchBackend.open(tmp_path / "fx.pt", options("fp32"))
