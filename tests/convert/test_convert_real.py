"""Real models to fp16 and int8, calibrated with people other than those that are evaluated.

MobileFaceNets are hard to quantise: the last wide activation, between the 1x1 convolution and the
7x7 depthwise one, has outliers that one int8 range cannot hold. Excluding the two layers at it is
what ``--auto-exclude`` finds first.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="needs the cpu or gpu extra")
pytest.importorskip("onnx", reason="needs the test extra")

from evalkit.cli import main
from evalkit.core.sidecar import sidecar_path

pytestmark = pytest.mark.slow

PREPARATION = {
    "mobilefacenet": ["--mean", "123.675,116.28,103.53", "--std", "58.395,57.12,57.375"],
    "y1": ["--mean", "0", "--std", "1"],
}
NETWORK_END = {
    "mobilefacenet": ["--exclude", "/gdconv/*", "--exclude", "/conv2/*"],
    "y1": ["--exclude", "Conv_conv_6*", "--method", "percentile"],
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EVALKIT_DATA", raising=False)


def run(*words: object) -> int:
    return main([*map(str, words), "--quiet"])


def cosine(out: Path) -> float:
    return float(json.loads(sidecar_path(out).read_text())["figures"]["cosine"]["mean"])


def accuracy(data: Path, out: Path, *words: object) -> float:
    assert run("lfw", "--data", data, "--output", out, *words) == 0
    metrics = json.loads(out.read_text())["metrics"]
    return float(next(m["value"] for m in metrics if m["name"] == "accuracy/insightface"))


@pytest.mark.parametrize("name", PREPARATION)
@pytest.mark.parametrize(
    ("precision", "least", "lost"), [("fp16", 0.9999, 0.001), ("int8", 0.99, 0.004)]
)
def test_recognition(
    shared_data: Path, tmp_path: Path, name: str, precision: str, least: float, lost: float
) -> None:
    if precision == "fp16":
        pytest.importorskip("onnxconverter_common", reason="needs the convert extra")
    model, data = shared_data / "models" / f"{name}.onnx", shared_data / "congress"
    out, prepare = tmp_path / "out.onnx", PREPARATION[name]
    words = [*prepare, "--calibration", data / "cong_lo.bin", "--evaluated", data / "cong_hi.bin"]
    words += ["--samples", 128, "--held-out", 64, "--to", precision, "--out", out]
    if precision == "int8":
        words += ["--no-symmetric", *NETWORK_END[name]]
    assert run("convert", model, *words) == 0
    assert cosine(out) > least
    pairs = data / "cong_hi.bin"
    before = accuracy(pairs, tmp_path / "a.json", "--model", model, *prepare)
    after = accuracy(pairs, tmp_path / "b.json", "--model", out, "--precision", precision, *prepare)
    assert after >= before - lost
    conversion = json.loads((tmp_path / "b.json").read_text())["model"]["conversion"]
    assert (conversion["calibration"] is None) == (precision == "fp16")


def test_a_network_that_int8_breaks_is_not_written(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One range for every activation of y1: cosines about 0.85, though AUC would hardly move."""
    model, data = shared_data / "models" / "y1.onnx", shared_data / "congress" / "cong_lo.bin"
    words = ["--calibration", data, "--samples", 64, "--held-out", 32, *PREPARATION["y1"]]
    assert run("convert", model, "--to", "int8", "--out", tmp_path / "o.onnx", *words) == 1
    assert "the int8 model is wrong" in capsys.readouterr().err
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize(("precision", "least"), [("fp16", 0.999), ("int8", 0.95)])
def test_scrfd(shared_data: Path, tmp_path: Path, precision: str, least: float) -> None:
    """Its graph has opset 11, which knows no scale for each channel."""
    if precision == "fp16":
        pytest.importorskip("onnxconverter_common", reason="needs the convert extra")
    model = tmp_path / "scrfd.yaml"
    file = shared_data / "models" / "scrfd_500m_bnkps.onnx"
    model.write_text(
        f"name: scrfd\nfiles: {{onnxruntime: {file}}}\nhead: scrfd\n"
        "sizing: fixed=640x640 letterbox pad=0\ninput: {size: [640, 640], std: 128.0}\n"
    )
    out = tmp_path / "out.onnx"
    words = ["--calibration", shared_data / "widerface", "--to", precision, "--no-symmetric"]
    assert run("convert", model, "--out", out, *words) == 0
    assert cosine(out) > least
