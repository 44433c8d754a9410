"""Write the data, networks, ready-made input, policies and plans that `make_files.py` runs on.

All is synthetic and comes from fixed seeds.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from scipy.io import savemat

SUBJECTS, TEMPLATES = 12, 3
PAIRS = 40
SIDE = 16
CELL = 8
GRID = 6
EVENTS = {"0--Parade": 14, "1--Handshaking": 10}
DIMENSIONS = 8


def patches(rng: np.random.Generator, cells: int) -> NDArray[Any]:
    """Return the colours of a person."""
    return rng.integers(40, 216, (cells, cells, 3)).astype(float)


def seen(rng: np.random.Generator, person: NDArray[Any], noise: float) -> NDArray[Any]:
    """Return a picture of a person."""
    return person + rng.normal(0, noise, person.shape)


def png(colours: NDArray[Any], side: int) -> bytes:
    """Return a PNG file of patches."""
    picture = cv2.resize(
        colours.clip(0, 255).astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST
    )
    return cv2.imencode(".png", picture)[1].tobytes()


def write_release(root: Path) -> None:
    """Write an IJB-C release with galleries, and IJB-B's meta files without images."""
    rng = np.random.default_rng(0)
    people = [patches(rng, 8) for _ in range(SUBJECTS)]
    (root / "IJBC/loose_crop").mkdir(parents=True)
    names = []
    for template in range(SUBJECTS * TEMPLATES):
        names.append(f"{template}.png")
        file = root / "IJBC/loose_crop" / names[-1]
        file.write_bytes(png(seen(rng, people[template // TEMPLATES], 48), 24))
    first, second = np.triu_indices(len(names), 1)
    points = " ".join(str(round(24 / 112 * v, 2)) for v in (38, 52, 74, 52, 56, 72, 42, 92, 71, 92))
    meta = {
        "face_tid_mid.txt": [f"{name} {row + 5} {row + 100}" for row, name in enumerate(names)],
        "name_5pts_score.txt": [
            f"{name} {points} {0.5 + row / 80:.4f}" for row, name in enumerate(names)
        ],
        "template_pair_label.txt": [
            f"{a + 5} {b + 5} {int(a // TEMPLATES == b // TEMPLATES)}"
            for a, b in zip(first, second, strict=True)
        ],
    }
    for protocol in ("IJBC", "IJBB"):
        (root / protocol / "meta").mkdir(parents=True)
        for suffix, lines in meta.items():
            file = root / protocol / "meta" / f"{protocol.lower()}_{suffix}"
            file.write_text("\n".join(lines) + "\n")
    parts: dict[str, list[int]] = {"gallery_G1": [], "gallery_G2": [], "probe_mixed": []}
    for template in range(len(names)):
        subject, place = divmod(template, TEMPLATES)
        parts["probe_mixed" if place else f"gallery_G{1 + subject % 2}"].append(template)
    for name, templates in parts.items():
        rows = ["TEMPLATE_ID,SUBJECT_ID", *(f"{t + 5},{t // TEMPLATES}" for t in templates)]
        (root / "IJBC/meta" / f"ijbc_1N_{name}.csv").write_text("\n".join(rows) + "\n")


def write_pairs(root: Path) -> None:
    """Write a set of the LFW family, its images of the network's own size."""
    rng = np.random.default_rng(1)
    images, issame = [], []
    for pair in range(PAIRS):
        person, other = patches(rng, 4), patches(rng, 4)
        same = pair % 2 == 0
        images += [png(seen(rng, person, 70), SIDE)]
        images += [png(seen(rng, person if same else other, 70), SIDE)]
        issame.append(same)
    (root / "pairs.bin").write_bytes(pickle.dumps((images, issame)))


def write_wider(root: Path) -> None:
    """Write images with bright cells for faces, annotations, and the four files of ground truth."""
    rng = np.random.default_rng(2)
    names, boxes, kept, text = [], [], [], []
    for event, count in EVENTS.items():
        (root / "images" / event).mkdir(parents=True)
        rows: list[list[Any]] = [[], [], []]
        for number in range(count):
            colours = rng.integers(0, 150, (GRID, GRID, 3)).astype(float)
            cells = rng.choice(GRID * GRID, rng.integers(1, 5), replace=False)
            faces = np.array([[c % GRID, c // GRID] for c in cells]) * CELL
            for cell in cells:
                colours[cell // GRID, cell % GRID] = rng.integers(50, 230, 3)
            name = f"{event.replace('--', '_')}_{number}"
            (root / "images" / event / f"{name}.jpg").write_bytes(png(colours, GRID * CELL))
            table = np.concatenate([faces, np.full((len(faces), 2), CELL)], axis=1)
            rows[0].append(name)
            rows[1].append(table.astype(np.int32))
            rows[2].append(len(faces))
            lines = "".join(f"{x} {y} {w} {h} 0 0 0 0 0 0 \n" for x, y, w, h in table)
            text.append(f"{event}/{name}.jpg\n{len(faces)}\n{lines}")
        names.append(column(rows[0]))
        boxes.append(column(rows[1]))
        kept.append(rows[2])
    truth = root / "ground_truth"
    truth.mkdir()
    (truth / "wider_face_val_bbx_gt.txt").write_text("".join(text))
    common = {
        "event_list": column(list(EVENTS)),
        "file_list": column(names),
        "face_bbx_list": column(boxes),
    }
    for name in ("blur", "expression", "illumination", "invalid", "occlusion", "pose"):
        labels = [column([np.zeros((n, 1), np.uint8) for n in counts]) for counts in kept]
        common[f"{name}_label_list"] = column(labels)
    savemat(truth / "wider_face_val.mat", common, do_compression=True)
    for thirds, subset in enumerate(("easy", "medium", "hard"), 1):
        chosen = [column([first((thirds * n + 2) // 3) for n in counts]) for counts in kept]
        content = {**common, "gt_list": column(chosen)}
        savemat(truth / f"wider_{subset}_val.mat", content, do_compression=True)


def first(count: int) -> NDArray[np.uint8]:
    """Return the numbers of the first faces of an image, from 1."""
    return np.arange(1, count + 1, dtype=np.uint8)[:, None]


def column(items: list[Any]) -> NDArray[np.object_]:
    """Return a column of MATLAB's cells."""
    cells = np.empty((len(items), 1), object)
    for row, item in enumerate(items):
        cells[row, 0] = item
    return cells


def save_network(
    path: Path,
    nodes: list[Any],
    weights: dict[str, NDArray[Any]],
    side: int,
    outputs: dict[str, Any],
) -> None:
    """Write an ONNX file with the input ``x``."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, side, side])],
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in outputs.items()],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def save_detector(path: Path, grey: NDArray[Any]) -> None:
    """Write a detector that scores the cells of a grid by their brightness."""
    cells = np.array([[c % GRID, c // GRID, c % GRID + 1, c // GRID + 1] for c in range(GRID**2)])
    weights = {
        "grey": grey,
        "bias": np.array([-1.0]),
        "cells": cells[None] * float(CELL),
        "zero": np.array([0.0]),
    }
    nodes = [
        helper.make_node(
            "AveragePool", ["x"], ["1"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]
        ),
        helper.make_node("Conv", ["1", "grey"], ["2"]),
        helper.make_node("Add", ["2", "bias"], ["3"]),
        helper.make_node("Sigmoid", ["3"], ["4"]),
        helper.make_node("Flatten", ["4"], ["scores"], name="flatten"),
        helper.make_node("ReduceMean", ["x"], ["5"], axes=[3], keepdims=0),
        helper.make_node("ReduceMean", ["5"], ["6"], axes=[1, 2], keepdims=1),
        helper.make_node("Mul", ["6", "zero"], ["7"]),
        helper.make_node("Add", ["7", "cells"], ["boxes"]),
    ]
    outputs = {"boxes": [None, GRID**2, 4], "scores": [None, GRID**2]}
    save_network(path, nodes, weights, GRID * CELL, outputs)


def write_models(folder: Path) -> None:
    """Write an embedding network, two detectors, and their YAML files."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    weights = {
        "a": rng.normal(0, 0.3, (8, 3, 4, 4)),
        "w": rng.normal(0, 0.2, (128, DIMENSIONS)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["1"], name="conv", strides=[4, 4]),
        helper.make_node("Flatten", ["1"], ["2"], name="flatten"),
        helper.make_node("MatMul", ["2", "w"], ["y"], name="fc"),
    ]
    save_network(folder / "embed.onnx", nodes, weights, SIDE, {"y": ["n", DIMENSIONS]})
    for name, noise in (("detect", 0.0), ("detect-noisy", 0.35)):
        save_detector(folder / f"{name}.onnx", 1.2 + noise * rng.normal(0, 1, (1, 3, 1, 1)))
    for name in ("embed", "detect", "detect-noisy"):
        side = SIDE if name == "embed" else GRID * CELL
        value: dict[str, Any] = {"name": name, "files": {"onnxruntime": f"{name}.onnx"}}
        value["input"] = {"size": [side, side]}
        if name != "embed":
            value |= {"head": "boxes", "sizing": f"fixed={side}x{side} letterbox pad=0"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(value, sort_keys=False))


def write_ready() -> None:
    """Write what somebody's own inference would have computed."""
    Path("ready").mkdir()
    rng = np.random.default_rng(4)
    people = np.repeat(rng.normal(size=(SUBJECTS, DIMENSIONS)), TEMPLATES, axis=0)
    np.save("ready/features.npy", (people + rng.normal(0, 0.6, people.shape)).astype(np.float32))
    pair = np.repeat(rng.normal(size=(PAIRS, DIMENSIONS)), 2, axis=0)
    pair[3::4] = rng.normal(size=(PAIRS // 2, DIMENSIONS))
    np.save("ready/embeddings.npy", (pair + rng.normal(0, 0.5, pair.shape)).astype(np.float32))


POLICIES = {
    "patterns": {
        "failures_to_enrol": 1,
        "metrics": [
            {"name": "ap/*", "absolute": 0.1},
            {"name": "tar@far=1e-0[12]", "errors": 3},
            {"name": "tar@far=*", "relative": 0.5},
            {"name": "accuracy/*", "errors": 2},
            {"name": "rank-?", "absolute": 0.1},
        ],
    },
    "exact": {"metrics": [{"name": "tar@far=1e-01", "absolute": 0.02}]},
}


def write_policies() -> None:
    """Write policies of a gate."""
    Path("policies").mkdir()
    for name, policy in POLICIES.items():
        Path(f"policies/{name}.yaml").write_text(yaml.safe_dump(policy, sort_keys=False))


def write_plans() -> None:
    """Write a plan of two protocols and two modes, and the one before it."""
    Path("plans").mkdir()
    settings = {"far": [0.1]}
    plan = {
        "name": "tiny networks",
        "models": {"recognition": "../models/embed.yaml", "detector": "../models/detect.yaml"},
        "protocols": [
            {
                "name": "templates",
                "kind": "ijbc",
                "data": "../data/IJBC",
                "settings": settings,
                "primary": "tar@far=1e-01",
                "margin": {"points": 20},
                "limits": {"drift_cosine_p1": 0.5, "failures_to_enrol": 0},
            },
            {
                "name": "pairs",
                "kind": "lfw",
                "data": "../data/pairs.bin",
                "settings": {**settings, "rules": ["insightface"], "flip": False},
                "primary": "accuracy/insightface",
                "margin": {"relative": 0.9},
            },
        ],
        "matrix": {"backends": ["onnxruntime"], "precisions": ["fp32", "int8"]},
        "reference": "onnxruntime",
        "statistics": {"replicates": 200, "seed": 7},
    }
    Path("plans/release.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    plan["protocols"][0]["margin"] = {"points": 15}  # type: ignore[index]
    Path("plans/first.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
