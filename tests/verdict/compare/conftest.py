"""A tiny release with images, a tiny network, and runs on them through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from evalkit.cli import main

SUBJECTS, TEMPLATES, SIDE = 12, 3, 120
POINTS = "40 52 75 52 57 72 43 92 72 92"

Run = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("EVALKIT_DATA", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An IJB-C release folder: 12 subjects, 3 templates each, every pair compared."""
    root = tmp_path_factory.mktemp("data") / "IJBC"
    (root / "meta").mkdir(parents=True)
    (root / "loose_crop").mkdir()
    rng = np.random.default_rng(0)
    faces = rng.integers(40, 216, (SUBJECTS, 8, 8, 3))
    names = []
    for template in range(SUBJECTS * TEMPLATES):
        noisy = faces[template // TEMPLATES] + rng.normal(0, 45, (8, 8, 3))
        image = cv2.resize(noisy.clip(0, 255).astype(np.uint8), (SIDE, SIDE))
        names.append(f"{template}.png")
        cv2.imwrite(str(root / "loose_crop" / names[-1]), image)
    rows = list(enumerate(names))
    first, second = np.triu_indices(len(names), 1)
    meta = root / "meta"
    meta.joinpath("ijbc_face_tid_mid.txt").write_text(
        "".join(f"{name} {row} {row}\n" for row, name in rows)
    )
    meta.joinpath("ijbc_name_5pts_score.txt").write_text(
        "".join(f"{name} {POINTS} 0.9\n" for _, name in rows)
    )
    meta.joinpath("ijbc_template_pair_label.txt").write_text(
        "".join(
            f"{a} {b} {int(a // TEMPLATES == b // TEMPLATES)}\n"
            for a, b in zip(first, second, strict=True)
        )
    )
    return root


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], Path]:
    """Write a network that averages patches and mixes them, its weights off by some noise."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("models")

    def write(noise: float) -> Path:
        weights = np.random.default_rng(1).normal(size=(48, 32))
        weights += np.random.default_rng(2).normal(0, noise, weights.shape)
        make = onnx.helper
        graph = make.make_graph(
            [
                make.make_node(
                    "AveragePool", ["x"], ["p"], kernel_shape=[28, 28], strides=[28, 28]
                ),
                make.make_node("Flatten", ["p"], ["f"]),
                make.make_node("MatMul", ["f", "w"], ["y"]),
            ],
            "tiny",
            [make.make_tensor_value_info("x", 1, ["n", 3, 112, 112])],
            [make.make_tensor_value_info("y", 1, ["n", 32])],
            [onnx.numpy_helper.from_array(weights.astype(np.float32), "w")],
        )
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9)
        path = folder / f"tiny-{noise}.onnx"
        onnx.save(model, path)
        return path

    return write


@pytest.fixture
def ijbc(release: Path, tmp_path: Path) -> Run:
    """Run ``evalkit ijbc`` and return the result file."""

    def run(name: str, *options: str | Path) -> Path:
        path = tmp_path / f"{name}.json"
        words = ["ijbc", "--data", release, "--far", "0.01,0.1,0.2", "--quiet", *options]
        assert main([*map(str, words), "--output", str(path)]) == 0
        return path

    return run


@pytest.fixture
def lfw(tmp_path: Path) -> Run:
    """Run ``evalkit lfw`` on ready-made embeddings and return the result file."""
    import pickle

    rng = np.random.default_rng(0)
    pairs = 400
    _, encoded = cv2.imencode(".png", np.zeros((112, 112, 3), np.uint8))
    issame = [bool(pair % 2) for pair in range(pairs)]
    images = [encoded.tobytes() + bytes(f"{i:04}", "ascii") for i in range(2 * pairs)]
    (tmp_path / "set.bin").write_bytes(pickle.dumps((images, issame)))
    embeddings = rng.normal(size=(pairs, 2, 16))
    embeddings[np.array(issame), 1] = embeddings[np.array(issame), 0]
    embeddings += rng.normal(0, 0.6, embeddings.shape)

    def run(name: str, noise: float, *options: str) -> Path:
        path, ready = tmp_path / f"{name}.json", tmp_path / f"{name}.npy"
        noisy = embeddings + np.random.default_rng(9).normal(0, noise, embeddings.shape)
        np.save(ready, noisy.reshape(-1, 16).astype(np.float32))
        words = ["lfw", "--data", tmp_path / "set.bin", "--embeddings", ready, "--quiet", *options]
        assert main([*map(str, words), "--output", str(path)]) == 0
        return path

    return run
