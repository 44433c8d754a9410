"""PyTorch networks to ONNX and TorchScript: the same figures, a record, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
pytest.importorskip("onnxscript", reason="needs the convert extra")
pytest.importorskip("onnxruntime", reason="needs the cpu or gpu extra")

from evalkit.backends.onnxruntime.backend import OnnxRuntimeBackend  # noqa: E402
from evalkit.cli import main  # noqa: E402
from evalkit.core.files import sha256_file  # noqa: E402
from evalkit.datasets import sample  # noqa: E402

SAMPLE = Path(sample.__path__[0]) / "recognition.pt"


def run(*words: object) -> int:
    return main(["export", *map(str, words)])


def test_onnx_of_any_batch_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.onnx"
    assert run(SAMPLE, "--to", "onnx", "--out", out) == 0
    assert "the limit is 1e-06: met" in capsys.readouterr().out
    from evalkit.backends.base import SessionOptions

    images = np.random.default_rng(0).normal(0, 1, (5, 3, 112, 112)).astype(np.float32)
    with torch.inference_mode():
        wanted = torch.jit.load(str(SAMPLE))(torch.from_numpy(images)).numpy()
    with OnnxRuntimeBackend.open(out, SessionOptions(threads=1)) as session:
        (found,) = session.run(images).values()
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)


def test_a_fixed_batch_and_the_record(tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    assert run(SAMPLE, "--to", "onnx", "--out", out, "--batch", 2, "--opset", 18) == 0
    from evalkit.backends.base import SessionOptions

    with OnnxRuntimeBackend.open(out, SessionOptions(threads=1)) as session:
        assert session.inputs[0].batch == 2
    record = json.loads((tmp_path / "m.onnx.evalkit.json").read_text())
    assert record["source"] == {"file": "recognition.pt", "sha256": sha256_file(SAMPLE)}
    assert record["built"]["sha256"] == sha256_file(out)
    assert record["settings"]["batch"] == 2
    assert 0 <= record["agreement"]["atol_needed"] <= 1e-6


def test_an_atol_that_is_not_met_is_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.onnx"
    assert run(SAMPLE, "--to", "onnx", "--out", out, "--atol", "-1") == 1
    assert "NOT MET" in capsys.readouterr().out
    assert out.is_file()


def test_simplified(tmp_path: Path) -> None:
    pytest.importorskip("onnxslim", reason="needs the convert extra")
    assert run(SAMPLE, "--to", "onnx", "--out", tmp_path / "m.onnx", "--simplify") == 0


def test_torchscript_of_weights(tmp_path: Path) -> None:
    from evalkit.backends.architectures import ARCHITECTURES

    network = ARCHITECTURES.get("retinaface-mobilenet025").build({})
    weights = tmp_path / "weights.pth"
    torch.save(network.state_dict(), weights)
    out = tmp_path / "traced.pt"
    words = ["--architecture", "retinaface-mobilenet025", "--to", "torchscript", "--out", out]
    assert run(weights, *words) == 0
    assert torch.jit.load(str(out)) is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "torchscript", "--out", "m.pt"], "is TorchScript already"),
        (["--to", "onnx", "--out", "m.pt"], "end in .onnx"),
    ],
)
def test_refusals(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(SAMPLE, *words) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.onnx"
    out.write_bytes(b"mine")
    assert run(SAMPLE, "--to", "onnx", "--out", out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_bytes() == b"mine"


def test_numbers_that_are_none_are_no_agreement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NaN on both sides would need no tolerance at all."""

    broken = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 112), torch.nn.Flatten())
    with torch.no_grad():
        broken[0].bias.fill_(torch.nan)
    batch = torch.export.Dim("n")
    program = torch.export.export(
        broken.eval(), (torch.zeros(2, 3, 112, 112),), dynamic_shapes=({0: batch},)
    )
    torch.export.save(program, tmp_path / "broken.pt2")
    assert run(tmp_path / "broken.pt2", "--to", "onnx", "--out", tmp_path / "m.onnx") == 2
    assert "NaN or infinite" in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()
