"""Train the packaged sample face detector on drawn scenes, and export it.

    python tools/train_detection.py                    # draw, train, export, evaluate
    python tools/train_detection.py --evaluate-only    # held-out figures of the packaged file

The network learns from scenes whose numbers start at FIRST_SCENE, of people whose numbers start at
FIRST_TRAINING_SUBJECT; a written sample of any size holds neither. The figures are those of the
default WIDER FACE sample, decoded as configs/models/sample-detection.yaml says.
"""

from __future__ import annotations

import argparse
import io
import math
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchscript import without_debug_records

import evalkit.configs
from evalkit.core.progress import Progress
from evalkit.core.validation import read_yaml
from evalkit.datasets import sample
from evalkit.heads.decoding import grid
from evalkit.tasks.run import run
from evalkit.tasks.widerface.settings import WiderFaceSettings
from evalkit.tasks.widerface.task import WiderFaceTask
from sample_painter.photo import encode
from sample_painter.scenes import draw_scene
from sample_painter.traits import FIRST_TRAINING_SUBJECT
from sample_painter.widerface import EVENTS

PACKAGE = Path(sample.__file__).parent
STRIDES = (8, 16, 32)
# Longest side in pixels of the faces that each stride answers for.
REACH = ((0.0, 40.0), (40.0, 104.0), (104.0, math.inf))
WIDTHS = (16, 24, 32, 48)  # channels of the strides 4, 8, 16 and 32
JOINED = 16  # channels where the levels come together
CROP = 256
SCENE = (704, 1024)
SEED = 30_000
FIRST_SCENE = 1_000_000  # a written sample has at most 10,000, numbered from 0
SUBJECTS = 64  # set aside for a scene
LEAST_SHARE = 0.5  # of a face in a crop that is still to be found
LEAST_HEIGHT = 7.0  # pixels of the same

Floats = NDArray[np.float32]


def unit(inputs: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):  # type: ignore[misc]
    """Two units around which the input is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = unit(width, width)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape of `x`."""
        return functional.relu(x + self.second(self.first(x)))


class Head(nn.Module):  # type: ignore[misc]
    """Score and distances to the four sides, at every place of one level."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shared = unit(width, width)
        self.score = nn.Conv2d(width, 1, 1)
        self.box = nn.Conv2d(width, 4, 1)
        nn.init.constant_(self.score.bias, -4.0)
        nn.init.constant_(self.box.bias, 2.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tables (n, places, 1) of logits and (n, places, 4) of distances in strides."""
        x = self.shared(x)
        return self.score(x).flatten(2).transpose(1, 2), self.box(x).flatten(2).transpose(1, 2)


class SampleDetector(nn.Module):  # type: ignore[misc]
    """From (n, 3, h, w) images in [-1, 1], h and w multiples of 32, to tables of three levels."""

    def __init__(self) -> None:
        super().__init__()
        first, *others = WIDTHS
        self.stem = unit(3, first, 4, size=7)
        self.stages = nn.ModuleList(
            nn.Sequential(unit(inputs, outputs, 2), Residual(outputs))
            for inputs, outputs in zip(WIDTHS, others, strict=False)
        )
        self.laterals = nn.ModuleList(unit(inputs, JOINED, size=1) for inputs in others)
        self.heads = nn.ModuleList(Head(JOINED) for _ in STRIDES)

    def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Logits and distances of each stride."""
        x = self.stem(x)
        levels = []
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        for fine in (1, 0):
            coarse = functional.interpolate(levels[fine + 1], scale_factor=2.0, mode="nearest")
            levels[fine] = levels[fine] + coarse
        return [head(level) for head, level in zip(self.heads, levels, strict=True)]


class Exported(nn.Module):  # type: ignore[misc]
    """The detector with its scores after the sigmoid, as one row of outputs."""

    def __init__(self, net: SampleDetector) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Scores, then distances, each by ascending stride."""
        levels = self.net(x)
        return (*(score.sigmoid() for score, _ in levels), *(box for _, box in levels))


@dataclass(frozen=True, slots=True)
class Drawn:
    """Training scenes: pixels, corner boxes x1 y1 x2 y2, and which faces are to be found."""

    images: NDArray[np.uint8]
    boxes: list[Floats]
    valid: list[NDArray[np.bool_]]


def _scene(number: int) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.uint8]]:
    """One training scene through JPEG."""
    crowd = list(EVENTS.values())[number % len(EVENTS)]
    first = FIRST_TRAINING_SUBJECT + number * SUBJECTS
    scene = draw_scene(SEED, FIRST_SCENE + number, crowd, SCENE, first)
    data = np.frombuffer(encode(scene.image, 90), np.uint8)
    image = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return image.astype(np.uint8, copy=False), scene.boxes, scene.attributes


def draw_scenes(count: int, workers: int) -> Drawn:
    """Draw the training scenes, of every kind in turn."""
    drawn = Drawn(np.empty((count, *SCENE, 3), np.uint8), [], [])
    with multiprocessing.Pool(workers, cv2.setNumThreads, (0,)) as pool:
        scenes = pool.imap(_scene, range(count), chunksize=4)
        for row, (image, boxes, attributes) in enumerate(scenes):
            drawn.images[row] = image
            corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
            drawn.boxes.append(corners.astype(np.float32))
            drawn.valid.append(attributes[:, 3] == 0)
    return drawn


def crop_of(
    drawn: Drawn, row: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Floats, NDArray[np.bool_]]:
    """Cut one square at a random scale: pixels, its boxes, and which of them are to be found."""
    scale = float(np.exp(rng.uniform(math.log(0.5), math.log(1.5))))
    side = min(round(CROP / scale), *SCENE)
    scale = CROP / side
    y, x = (int(rng.integers(0, limit - side + 1)) for limit in SCENE)
    cut = drawn.images[row, y : y + side, x : x + side]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    pixels = cv2.resize(cut, (CROP, CROP), interpolation=how)
    boxes = (drawn.boxes[row] - np.array([x, y, x, y], np.float32)) * np.float32(scale)
    inside = np.clip(boxes, 0, CROP)
    size = inside[:, 2:] - inside[:, :2]
    share = size.prod(axis=1) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    valid = drawn.valid[row] & (share >= LEAST_SHARE) & (size[:, 1] >= LEAST_HEIGHT)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
        inside = np.array([CROP, 0, CROP, 0], np.float32) - inside[:, [2, 1, 0, 3]]
        inside[:, [1, 3]] *= -1
    seen = share > 0
    return pixels.astype(np.uint8, copy=False), inside[seen], valid[seen]


def assign(boxes: Floats, valid: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Say which face every place of every level answers for.

    A face belongs to the level of its size, and there to the places within its box that lie within
    one and a half strides of its middle, or else to the place nearest to it. Of several faces the
    smallest wins.

    Returns
    -------
    labels : ndarray of shape (places,)
        1 a face, 0 none, -1 not asked: within a face that need not be found.
    targets : ndarray of shape (places, 4)
        Box of the face in pixels.
    """
    labels, targets = [], []
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    longest = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
    for stride, (low, high) in zip(STRIDES, REACH, strict=True):
        points = grid((CROP, CROP), stride, 1) * stride
        label = np.zeros(len(points), np.float32)
        target = np.zeros((len(points), 4), np.float32)
        far = np.abs(points[:, None] - (boxes[:, :2] + boxes[:, 2:]) / 2).max(axis=2)
        over = (points[:, None] > boxes[:, :2]) & (points[:, None] < boxes[:, 2:])
        within = np.logical_and.reduce(over, axis=2)
        label[within[:, ~valid].any(axis=1)] = -1
        for face in np.argsort(-areas, kind="stable"):
            if valid[face] and low < longest[face] <= high:
                own = within[:, face] & (far[:, face] < 1.5 * stride)
                own[np.argmin(far[:, face])] = True
                label[own], target[own] = 1, boxes[face]
        labels.append(label)
        targets.append(target)
    return np.concatenate(labels), np.concatenate(targets)


def batches(drawn: Drawn, options: argparse.Namespace) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Endless batches of normalised crops, their labels and targets."""
    rng = np.random.default_rng(options.seed)
    while True:
        pixels = np.empty((options.batch, CROP, CROP, 3), np.uint8)
        assigned = []
        for place in range(options.batch):
            row = int(rng.integers(len(drawn.images)))
            pixels[place], boxes, valid = crop_of(drawn, row, rng)
            assigned.append(assign(boxes, valid))
        gain = torch.from_numpy(rng.uniform(0.8, 1.2, (options.batch, 1, 1, 1))).float()
        labels, targets = (torch.from_numpy(np.stack(part)) for part in zip(*assigned, strict=True))
        yield to_input(pixels) * gain, labels, targets


def to_input(images: NDArray[np.uint8]) -> Tensor:
    """Normalised (n, 3, h, w) batch."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127.5) / 127.5


def overlaps(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (arXiv:1902.09630) of rows of corner boxes."""
    inner = torch.minimum(boxes[:, 2:], targets[:, 2:]) - torch.maximum(
        boxes[:, :2], targets[:, :2]
    )
    outer = torch.maximum(boxes[:, 2:], targets[:, 2:]) - torch.minimum(
        boxes[:, :2], targets[:, :2]
    )
    shared = inner.clamp(min=0).prod(1)
    sizes = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0), targets[:, 2:] - targets[:, :2]
    union = sizes[0].prod(1) + sizes[1].prod(1) - shared
    hull = outer.clamp(min=0).prod(1)
    iou = shared / union.clamp(min=1e-6)
    return iou, iou - (hull - union) / hull.clamp(min=1e-6)


def loss_of(levels: list[tuple[Tensor, Tensor]], labels: Tensor, targets: Tensor) -> Tensor:
    """Quality focal loss (arXiv:2006.04388) of the scores, and GIoU loss of the boxes."""
    logits = torch.cat([score.float() for score, _ in levels], 1)[:, :, 0]
    points = [torch.from_numpy(grid((CROP, CROP), s, 1) * s).repeat(1, 2) for s in STRIDES]
    signs = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    boxes = torch.cat(
        [
            at + signs * stride * box.float()
            for at, stride, (_, box) in zip(points, STRIDES, levels, strict=True)
        ],
        1,
    )
    faces = labels > 0
    iou, giou = overlaps(boxes[faces], targets[faces])
    quality = torch.zeros_like(logits)
    quality[faces] = iou.detach()
    errors = functional.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    focal = errors * (quality - logits.sigmoid()).square() * (labels >= 0)
    return (focal.sum() + 2.0 * (1 - giou).sum()) / faces.sum().clamp(min=1)


def train(drawn: Drawn, options: argparse.Namespace) -> SampleDetector:
    """Train a new network; the learning rate rises for a short while and falls as a cosine."""
    torch.manual_seed(options.seed)
    net = SampleDetector()
    net.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=options.rate, weight_decay=0.02)
    running, begun = 0.0, time.perf_counter()
    for step, (pixels, labels, targets) in zip(
        range(options.steps), batches(drawn, options), strict=False
    ):
        rate = min(1.0, (step + 1) / 60) * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        optimiser.param_groups[0]["lr"] = options.rate * rate + 1e-5
        with torch.autocast("cpu", torch.bfloat16):
            levels = net(pixels.contiguous(memory_format=torch.channels_last))
        loss = loss_of(levels, labels, targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        running = loss.item() if step == 0 else 0.95 * running + 0.05 * loss.item()
        if (step + 1) % 50 == 0:
            passed = time.perf_counter() - begun
            print(
                f"  step {step + 1}/{options.steps} loss {running:.3f} {passed:.0f} s", flush=True
            )
    net.eval()
    return net


def export(net: SampleDetector, folder: Path) -> None:
    """Write detection.onnx and detection.pt (TorchScript), of free batch, height and width."""
    model = Exported(net.float().to(memory_format=torch.contiguous_format)).eval()
    example = torch.zeros(2, 3, 96, 128)
    names = [f"{kind}_{stride}" for kind in ("score", "box") for stride in STRIDES]
    torch.onnx.export(
        model,
        (example,),
        str(folder / "detection.onnx"),
        input_names=["input"],
        output_names=names,
        dynamic_axes={
            "input": {0: "batch", 2: "height", 3: "width"},
            **{name: {0: "batch", 1: f"places_{name.split('_')[1]}"} for name in names},
        },
        opset_version=17,
        dynamo=False,
    )
    traced = io.BytesIO()
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(model, example), traced)
    (folder / "detection.pt").write_bytes(without_debug_records(traced))


def evaluate_on_sample(model: Path) -> None:
    """Print the AP of a model file on the default WIDER FACE sample."""
    values = read_yaml(Path(evalkit.configs.__path__[0]) / "models" / "sample-detection.yaml")
    values["files"] = {"onnxruntime": str(model.absolute())}
    with tempfile.TemporaryDirectory() as scratch:
        named = Path(scratch) / "model.yaml"
        named.write_text(yaml.safe_dump(values), encoding="utf-8")
        config = WiderFaceSettings(data=sample.sample_path("widerface"), model=str(named))
        (outcome,) = run(WiderFaceTask(), config, Progress(quiet=True))
    for metric in outcome.result.metrics:
        if metric.figure == "ap" and not metric.part:
            print(f"held-out scenes: {metric.subset.title()} AP = {metric.value:.4f}", flush=True)


def main() -> None:
    """Parse the options and do what they say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="of the training; two are slower where the machine is shared",
    )
    parser.add_argument("--out", type=Path, default=PACKAGE, help="folder of the model files")
    parser.add_argument("--evaluate-only", action="store_true")
    options = parser.parse_args()
    if not options.evaluate_only:
        cv2.setNumThreads(0)
        torch.set_num_threads(options.threads)
        begun = time.perf_counter()
        drawn = draw_scenes(options.scenes, options.workers)
        print(f"{options.scenes} scenes in {time.perf_counter() - begun:.0f} s", flush=True)
        export(train(drawn, options), options.out)
    evaluate_on_sample(options.out / "detection.onnx")


if __name__ == "__main__":
    main()
