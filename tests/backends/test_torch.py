"""PyTorch: the contract for each form of file, what ran, and files that would run code."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")

from tiny_network import CHANNELS, FEATURES, SIDE, Tiny, batch  # noqa: E402
from torch import nn  # noqa: E402

from evalkit.backends.architectures import ARCHITECTURES  # noqa: E402
from evalkit.backends.architectures.base import Architecture  # noqa: E402
from evalkit.backends.base import SessionOptions  # noqa: E402
from evalkit.backends.torch.backend import TorchBackend  # noqa: E402
from evalkit.backends.torch.exported import is_plain_expression  # noqa: E402
from evalkit.backends.torch.loading import unwrap  # noqa: E402
from evalkit.core.errors import InputError  # noqa: E402
from evalkit.testing import BackendContract  # noqa: E402

ONE = SessionOptions(threads=1, image=(3, SIDE, SIDE))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(CHANNELS)
        self.prelu = nn.PReLU(CHANNELS)
        self.fc = nn.Linear(CHANNELS * (SIDE // 2) ** 2, FEATURES)

    def forward(self, x: Any) -> Any:
        return self.fc(self.prelu(self.bn(self.conv(x))).flatten(1))


class TinyArchitecture(Architecture):
    input_shape = (3, SIDE, SIDE)

    @classmethod
    def build(cls, weights: Any) -> nn.Module:
        return Network()


class Several(nn.Module):
    """Outputs of each kind that a network may return."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Any) -> Any:
        if self.form == "nested":
            return x.mean(3), [x.sum(3), x.amax(3)]
        return {"boxes": x.mean(3), "scores": x.sum(3)}


def network(tiny: Tiny) -> Network:
    module = Network().eval()
    weights = {name: torch.from_numpy(value.copy()) for name, value in tiny.weights.items()}
    module.load_state_dict(weights, strict=False)
    return module


def write_torchscript(tiny: Tiny, path: Path) -> Path:
    torch.jit.save(torch.jit.trace(network(tiny), torch.from_numpy(batch())), path)
    return path


def write_exported(tiny: Tiny, path: Path, *, dynamic: bool = True) -> Path:
    shapes = ({0: torch.export.Dim("n")},) if dynamic else None
    program = torch.export.export(
        network(tiny), (torch.from_numpy(batch()),), dynamic_shapes=shapes
    )
    torch.export.save(program, path)
    return path


def write_weights(tiny: Tiny, path: Path) -> Path:
    torch.save(network(tiny).state_dict(), path)
    return path


@pytest.fixture(scope="module", autouse=True)
def tiny_architecture() -> Any:
    """Registers the tiny network beside the real ones."""
    ARCHITECTURES.register("tiny", f"{__name__}:TinyArchitecture", origin="the tests")
    yield
    ARCHITECTURES._entries.pop("tiny")


class TestTorchScript(BackendContract):
    backend = TorchBackend
    options = ONE

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path) -> None:
        cls.model = write_torchscript(tiny, models / "script.pt")
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


class TestExported(TestTorchScript):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path) -> None:
        cls.model = write_exported(tiny, models / "program.pt2")
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


class TestExportedFixed(TestTorchScript):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path) -> None:
        cls.model = write_exported(tiny, models / "fixed.pt2", dynamic=False)
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


class TestWeights(TestTorchScript):
    options = SessionOptions(threads=1, architecture="tiny")

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path) -> None:
        cls.model = write_weights(tiny, models / "weights.pth")
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
class TestCuda(TestTorchScript):
    rtol = 3e-2

    @pytest.fixture(autouse=True)
    def on_the_gpu(self, precision: Any) -> None:
        self.options = SessionOptions(precision, device="cuda:0", threads=1, image=ONE.image)


@pytest.mark.parametrize(
    ("precision", "stored", "autocast"),
    [("fp32", "float32", None), ("fp16", "float16", None), ("bf16", "float32", "bfloat16")],
)
def test_precision_that_ran(
    tiny: Tiny, tmp_path: Path, precision: Any, stored: str, autocast: str | None
) -> None:
    file = write_torchscript(tiny, tmp_path / "m.pt")
    options = SessionOptions(precision, threads=1, image=ONE.image)
    with TorchBackend.open(file, options) as session:
        out = session.run(batch())["output0"]
        details = session.ran.details
        assert session.ran.precision_ran == precision
    assert details["heavy_kernels_by_precision"] == {precision: 2}
    assert set(details["parameter_dtypes"]) == {stored}
    assert details["autocast"] == autocast
    wanted = tiny(batch())
    worst = np.abs(out - wanted).max() / np.abs(wanted).max()
    exact, coarsest = {"fp32": (0, 1e-5), "fp16": (1e-6, 5e-3), "bf16": (1e-4, 5e-2)}[precision]
    assert exact <= worst < coarsest


def test_weights_stored_low_are_not_called_fp32(tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "half.pth"
    torch.save(network(tiny).half().state_dict(), file)
    with pytest.raises(InputError, match=r"float16 parameters; fp32 would be a label only"):
        TorchBackend.open(file, SessionOptions(threads=1, architecture="tiny"))
    with TorchBackend.open(file, SessionOptions("fp16", threads=1, architecture="tiny")) as session:
        assert session.ran.precision_ran == "fp16"
        assert session.ran.notes == ()


def test_exported_program_is_not_relabelled(tiny: Tiny, tmp_path: Path) -> None:
    file = write_exported(tiny, tmp_path / "m.pt2")
    with pytest.raises(InputError, match="holds float32 parameters; fp16 would be a label"):
        TorchBackend.open(file, SessionOptions("fp16", threads=1))


def test_int8_is_no_label_for_a_float_network(tiny: Tiny, tmp_path: Path) -> None:
    file = write_torchscript(tiny, tmp_path / "m.pt")
    with pytest.raises(InputError, match="float32 operators; int8 would be a label only"):
        TorchBackend.open(file, SessionOptions("int8", image=ONE.image))


@pytest.mark.parametrize("flushed", [False, True])
def test_the_callers_flushing_comes_back(tiny: Tiny, tmp_path: Path, flushed: bool) -> None:
    file = write_torchscript(tiny, tmp_path / "m.pt")
    torch.set_flush_denormal(flushed)
    try:
        with TorchBackend.open(file, ONE) as session:
            after_opening = bool(np.float64(5e-324) * 1.0)
            session.run(batch())
            after_running = bool(np.float64(5e-324) * 1.0)
    finally:
        torch.set_flush_denormal(False)
    assert after_opening is after_running is not flushed


def test_settings_of_the_caller_come_back(tiny: Tiny, tmp_path: Path) -> None:
    held = torch.get_num_threads()
    with TorchBackend.open(write_torchscript(tiny, tmp_path / "m.pt"), ONE) as session:
        session.run(batch())
    assert torch.get_num_threads() == held
    assert float(torch.tensor(1e-39) * 1) != 0


@pytest.mark.parametrize(
    ("form", "names"),
    [("nested", ["output0", "output1", "output2"]), ("dict", ["boxes", "scores"])],
)
def test_outputs_are_named(tmp_path: Path, form: str, names: list[str]) -> None:
    example = torch.from_numpy(batch())
    file = tmp_path / "several.pt2"
    torch.export.save(torch.export.export(Several(form), (example,)), file)
    with TorchBackend.open(file, ONE) as session:
        assert list(session.run(batch())) == names
        assert [info.name for info in session.outputs] == names


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: {"state_dict": w},
        lambda w: {"model": w},
        lambda w: {"state_dict": {f"module.{n}": v for n, v in w.items()}, "epoch": 3},
    ],
)
def test_wrappers_are_taken_off(
    tiny: Tiny, tmp_path: Path, wrap: Callable[[dict[str, Any]], Any]
) -> None:
    file = tmp_path / "wrapped.pt"
    torch.save(wrap(dict(network(tiny).state_dict())), file)
    with TorchBackend.open(file, SessionOptions(threads=1, architecture="tiny")) as session:
        np.testing.assert_allclose(session.run(batch())["output0"], tiny(batch()), atol=1e-5)


@pytest.mark.parametrize("stored", [{}, [1], {"a": 1}, {"state_dict": {"a": "text"}}])
def test_what_is_no_state_dict(stored: Any) -> None:
    assert unwrap(stored) is None


def test_weights_of_another_network_are_named(tiny: Tiny, tmp_path: Path) -> None:
    weights = dict(network(tiny).state_dict())
    weights["extra.weight"] = weights.pop("conv.weight")
    weights["fc.bias"] = torch.zeros(9)
    file = tmp_path / "other.pth"
    torch.save(weights, file)
    with pytest.raises(InputError) as caught:
        TorchBackend.open(file, SessionOptions(architecture="tiny"))
    message = str(caught.value)
    assert "missing conv.weight" in message
    assert "unknown extra.weight" in message
    assert "fc.bias is (9,), not (5,)" in message


def test_weights_without_architecture_say_what_is_known(tiny: Tiny, tmp_path: Path) -> None:
    file = write_weights(tiny, tmp_path / "m.pth")
    with pytest.raises(InputError, match=r"holds weights alone.*iresnet100"):
        TorchBackend.open(file, ONE)
    with pytest.raises(InputError, match="Did you mean 'iresnet50'"):
        TorchBackend.open(file, SessionOptions(architecture="iresnet5"))
    with pytest.raises(InputError, match="not those of iresnet18"):
        TorchBackend.open(file, SessionOptions(architecture="iresnet18"))


@pytest.mark.parametrize(("user", "held"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_openmp_sleeps_where_it_waits_unless_the_user_says_otherwise(
    user: str | None, held: str
) -> None:
    script = (
        "import os, sys, evalkit.backends.tensors; assert 'torch' not in sys.modules; "
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if user is not None:
        environment["OMP_WAIT_POLICY"] = user
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == held


class Payload:
    """A pickle that would leave a mark on disk."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("old_format", [True, False])
def test_pickled_code_is_never_run(tmp_path: Path, old_format: bool) -> None:
    file, mark = tmp_path / "evil.pt", tmp_path / "mark"
    torch.save({"state_dict": Payload(mark)}, file, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(InputError, match="code in a file is never run"):
        TorchBackend.open(file, SessionOptions(architecture="tiny"))
    assert not mark.exists()


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.filterwarnings("error")
def test_a_plain_pickle_is_called_one_and_nothing_is_warned(tmp_path: Path, protocol: int) -> None:
    file, mark = tmp_path / "plain.pt", tmp_path / "mark"
    file.write_bytes(pickle.dumps(Payload(mark), protocol))
    with pytest.raises(InputError, match=r"plain\.pt is a.* pickle.*code in a file is never run"):
        TorchBackend.open(file, SessionOptions(architecture="tiny"))
    assert not mark.exists()


def test_a_whole_pickled_module_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "module.pt"
    torch.save(network(tiny), file)
    with pytest.raises(InputError, match="Network; code in a file is never run"):
        TorchBackend.open(file, SessionOptions(architecture="tiny"))


def tampered(source: Path, target: Path, change: Callable[[str, bytes], bytes]) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


class Writes(nn.Module):
    """A network that writes a file when it is loaded, and another when it is run."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        self.mark = mark

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.mark, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.mark, self.training = state[0], state[1]
        torch.save([torch.ones(1)], self.mark)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


@pytest.mark.parametrize(
    "call",
    [
        "torch.save(",
        "torch . save (",
        "ops.aten.save(",
        'getattr(torch, "save")(',
        'getattr(torch, "sa\\166e")(',
        'getattr(torch, "sa" # comment\n  "ve")(',
    ],
)
def test_torchscript_that_writes_files_is_never_loaded(tmp_path: Path, call: str) -> None:
    mark = tmp_path / "mark"
    torch.jit.script(Writes(str(mark))).save(tmp_path / "m.pt")

    def change(name: str, content: bytes) -> bytes:
        return content.replace(b"torch.save(", call.encode()) if name.endswith(".py") else content

    file = tampered(tmp_path / "m.pt", tmp_path / "evil.pt", change)
    mark.unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"__torch__.*uses 'save'.*never loaded"):
        TorchBackend.open(file, ONE)
    assert not mark.exists()


def test_torchscript_that_maps_files_is_never_loaded(tmp_path: Path) -> None:
    class Reads(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) + torch.from_file("/etc/hostname", False, 1).sum()

    torch.jit.script(Reads()).save(tmp_path / "m.pt")
    with pytest.raises(InputError, match="uses 'from_file'"):
        TorchBackend.open(tmp_path / "m.pt", ONE)


def test_pickled_weight_in_an_exported_program_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    payload = tmp_path / "payload"
    torch.save(Payload(mark), payload)

    def change(name: str, content: bytes) -> bytes:
        if name.endswith("model_weights_config.json"):
            config = json.loads(content)
            config["config"]["fc.bias"]["use_pickle"] = True
            return json.dumps(config).encode()
        return payload.read_bytes() if name.endswith("weight_0") else content

    file = tampered(write_exported(tiny, tmp_path / "m.pt2"), tmp_path / "evil.pt2", change)
    with pytest.raises(InputError, match="pickled object"):
        TorchBackend.open(file, ONE)
    assert not mark.exists()


def test_pickled_sample_inputs_are_never_read(tiny: Tiny, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    payload = tmp_path / "payload"
    torch.save(Payload(mark), payload)

    def change(name: str, content: bytes) -> bytes:
        return payload.read_bytes() if "sample_inputs" in name else content

    file = tampered(write_exported(tiny, tmp_path / "m.pt2"), tmp_path / "evil.pt2", change)
    with TorchBackend.open(file, ONE) as session:
        np.testing.assert_allclose(session.run(batch())["output0"], tiny(batch()), atol=1e-5)
    assert not mark.exists()


def test_code_in_a_symbolic_size_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        document = content.decode()
        start = document.index('"expr_str": "') + len('"expr_str": "')
        code = f"__import__('os').mkdir('{mark}')"
        return (document[:start] + code + document[document.index('"', start) :]).encode()

    file = tampered(write_exported(tiny, tmp_path / "m.pt2"), tmp_path / "evil.pt2", change)
    with pytest.raises(InputError, match="not plain arithmetic"):
        TorchBackend.open(file, ONE)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("s0", True),
        ("2*s0 + 1", True),
        ("Max(1, s0 - 3)", True),
        ("Symbol('s77', positive=True, integer=True)", True),
        ("open('x')", False),
        ("eval(s0)", False),
        ("s0.func", False),
        ("(lambda: s0)()", False),
        ("[s0][0]", False),
        ("Symbol('a b')", False),
        ("__import__", False),
    ],
)
def test_plain_expressions(text: str, plain: bool) -> None:
    assert is_plain_expression(text) is plain


def test_foreign_archive_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "archive.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "no model")
    with pytest.raises(InputError, match="no TorchScript, exported program or state dict"):
        TorchBackend.open(file, ONE)


@pytest.mark.parametrize("depth", [18, 34, 50, 100])
def test_iresnet_has_the_layers_of_its_name(depth: int) -> None:
    """Two convolutions a block, the stem and the final product."""
    architecture = ARCHITECTURES.get(f"iresnet{depth}")
    with torch.device("meta"):
        weights = {"fc.weight": torch.empty(512, 512 * 49)}
        module = architecture.build(weights)
    main = [n for n, m in module.named_modules() if isinstance(m, nn.Conv2d) and "down" not in n]
    assert len(main) + 1 == depth


def test_iresnet_reads_insightface_weights(tmp_path: Path) -> None:
    """Key names as arcface_torch's backbone.pth has them, embedding size read from the file."""
    torch.manual_seed(0)
    weights = {"fc.weight": torch.empty(64, 512 * 49)}
    module = ARCHITECTURES.get("iresnet18").build(weights).eval()
    stored = module.state_dict()
    expected = {"conv1.weight", "bn1.running_mean", "prelu.weight", "bn2.bias", "fc.bias"}
    expected |= {"features.running_var", "layer1.0.downsample.0.weight", "layer4.1.bn3.weight"}
    expected |= {"layer2.0.downsample.1.running_var", "layer3.1.prelu.weight"}
    assert expected <= set(stored)
    assert "layer1.1.downsample.0.weight" not in stored
    file = tmp_path / "backbone.pth"
    torch.save(stored, file)
    faces = np.random.default_rng(0).normal(0, 1, (2, 3, 112, 112)).astype(np.float32)
    with TorchBackend.open(file, SessionOptions(threads=2, architecture="iresnet18")) as session:
        out = session.run(faces)["output0"]
        assert session.inputs[0].shape == ("n", 3, 112, 112)
    with torch.inference_mode():
        wanted = module(torch.from_numpy(faces)).numpy()
    np.testing.assert_allclose(out, wanted, rtol=1e-3, atol=1e-4)


def test_real_network_agrees_with_onnxruntime(shared_data: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the cpu extra")
    from evalkit.backends.onnxruntime.backend import OnnxRuntimeBackend

    faces = np.random.default_rng(1).normal(0, 1, (4, 3, 112, 112)).astype(np.float32)
    folder = shared_data / "models"
    options = SessionOptions(threads=2)
    with TorchBackend.open(folder / "mobilefacenet.torchscript.pt", options) as session:
        ours = session.run(faces)["output0"]
    with OnnxRuntimeBackend.open(folder / "mobilefacenet.onnx", options) as session:
        theirs = session.run(faces)["emb"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max())
    assert np.abs(ours - theirs).max() < 1e-4


def test_a_network_that_returns_its_input_shares_nothing(tmp_path: Path) -> None:
    file = tmp_path / "identity.pt2"
    torch.export.save(torch.export.export(nn.Identity(), (torch.from_numpy(batch()),)), file)
    given = batch()
    with TorchBackend.open(file, ONE) as session:
        session.run(given)["output0"][...] = 0
    assert np.array_equal(given, batch())
