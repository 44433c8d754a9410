"""Train the packaged sample recognition network on drawn faces, and export it.

    python tools/train_recognition.py                       # draw, train, export, evaluate
    python tools/train_recognition.py --evaluate-only       # held-out figures of the packaged files

The network learns people whose numbers start at FIRST_TRAINING_SUBJECT; the figures are those of
people whom the written samples hold, none of whom it has seen.
"""

from __future__ import annotations

import argparse
import io
import math
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchscript import without_debug_records

from evalkit.datasets import sample
from evalkit.datasets.alignment import align
from sample_painter.photo import photograph
from sample_painter.traits import FIRST_TRAINING_SUBJECT

PACKAGE = Path(sample.__file__).parent
EMBEDDING = 128
TRAINING_SEED = 20_000
HELD_OUT_SEED = 10_000


def unit(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, BatchNorm, PReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.PReLU(outputs),
    )


class Residual(nn.Module):  # type: ignore[misc]
    """Two units around which the input is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = unit(width, width)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )
        self.activation = nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape of `x`."""
        out: Tensor = self.activation(x + self.second(self.first(x)))
        return out


class SampleNet(nn.Module):  # type: ignore[misc]
    """From (n, 3, 112, 112) aligned faces in [-1, 1] to (n, 128) embeddings of free norm."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 40, 7, 4, 3, bias=False),
            nn.BatchNorm2d(40),
            nn.PReLU(40),
            Residual(40),
            unit(40, 80, 2),
            Residual(80),
            unit(80, 128, 2),
            Residual(128),
            nn.Conv2d(128, 128, 7, groups=128, bias=False),
            nn.BatchNorm2d(128),
            nn.Flatten(),
            nn.Linear(128, EMBEDDING, bias=False),
            nn.BatchNorm1d(EMBEDDING),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Embed a batch."""
        out: Tensor = self.trunk(x)
        return out


class MarginSoftmax(nn.Module):  # type: ignore[misc]
    """Cross entropy over cosines with an additive margin (CosFace, arXiv:1801.09414)."""

    def __init__(self, people: int, scale: float = 24.0) -> None:
        super().__init__()
        self.centres = nn.Parameter(0.03 * torch.randn(people, EMBEDDING))
        self.scale = scale

    def forward(self, embeddings: Tensor, people: Tensor, margin: float) -> Tensor:
        """Mean loss of a batch; a cosine to the own centre is lowered by `margin`."""
        cosines = functional.normalize(embeddings) @ functional.normalize(self.centres).T
        own = functional.one_hot(people, len(self.centres)) * margin
        return functional.cross_entropy(self.scale * (cosines - own), people)


def _aligned(task: tuple[int, int, int, float]) -> NDArray[np.uint8]:
    """One aligned RGB face, through the same JPEG as a written sample."""
    seed, subject, image, hardness = task
    photo = photograph(seed, subject, image, hardness=hardness)
    bgr = cv2.imdecode(np.frombuffer(photo.jpeg, np.uint8), cv2.IMREAD_COLOR)
    return align(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), photo.points)


def draw_faces(seed: int, first: int, people: int, images: int, workers: int) -> NDArray[np.uint8]:
    """Aligned faces of shape (people * images, 112, 112, 3), person by person."""
    rng = np.random.default_rng(seed)
    hardness = rng.uniform(0.5, 1.3, size=(people, images)) if seed == TRAINING_SEED else None
    tasks = [
        (seed, first + p, i, 1.0 if hardness is None else float(hardness[p, i]))
        for p in range(people)
        for i in range(images)
    ]
    faces = np.empty((len(tasks), 112, 112, 3), np.uint8)
    with multiprocessing.Pool(workers, cv2.setNumThreads, (0,)) as pool:
        for row, face in enumerate(pool.imap(_aligned, tasks, chunksize=64)):
            faces[row] = face
    return faces


def to_input(faces: NDArray[np.uint8]) -> Tensor:
    """Normalised (n, 3, 112, 112) batch."""
    batch = torch.from_numpy(faces).permute(0, 3, 1, 2).float()
    return (batch - 127.5) / 127.5


def batches(
    faces: NDArray[np.uint8], images: int, size: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches of one epoch, half of each mirrored, with the person of each face."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(faces))
    for start in range(0, len(order) - size + 1, size):
        rows = order[start : start + size]
        batch = to_input(faces[rows])
        flipped = torch.from_numpy(rng.random(size) < 0.5)
        batch[flipped] = batch[flipped].flip(3)
        gain = torch.from_numpy(rng.uniform(0.8, 1.2, size=(size, 1, 1, 1)).astype(np.float32))
        yield (
            (batch * gain).contiguous(memory_format=torch.channels_last),
            torch.from_numpy(rows // images),
        )


def train(faces: NDArray[np.uint8], images: int, options: argparse.Namespace) -> SampleNet:
    """Train a new network; the learning rate rises for a short while and falls as a cosine."""
    torch.manual_seed(options.seed)
    net = SampleNet()
    net.to(memory_format=torch.channels_last).train()
    loss_of = MarginSoftmax(len(faces) // images)
    parameters = [*net.parameters(), *loss_of.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=options.rate, weight_decay=0.02)
    total = options.epochs * (len(faces) // options.batch)
    step, begun = 0, time.perf_counter()
    for epoch in range(options.epochs):
        running = 0.0
        for batch, people in batches(faces, images, options.batch, options.seed + epoch):
            rate = min(1.0, (step + 1) / 60) * 0.5 * (1 + math.cos(math.pi * step / total))
            optimiser.param_groups[0]["lr"] = options.rate * rate + 1e-4
            with torch.autocast("cpu", torch.bfloat16):
                embeddings = net(batch)
            # A margin from the first step keeps so short a training from ever starting to learn.
            margin = options.margin * float(np.clip((step / total - 0.35) / 0.45, 0.0, 1.0))
            loss = loss_of(embeddings.float(), people, margin)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            running, step = running + loss.item(), step + 1
            if step % 20 == 0:
                spent = time.perf_counter() - begun
                print(f"  step {step}/{total} loss {loss.item():.3f} {spent:.0f} s", flush=True)
        print(
            f"epoch {epoch + 1}: mean loss {running / (len(faces) // options.batch):.3f}",
            flush=True,
        )
    net.eval()
    return net


def export(net: SampleNet, folder: Path) -> None:
    """Write recognition.onnx (dynamic batch) and recognition.pt (TorchScript)."""
    example = torch.zeros(2, 3, 112, 112)
    net = net.float().to(memory_format=torch.contiguous_format).eval()
    torch.onnx.export(
        net,
        (example,),
        str(folder / "recognition.onnx"),
        input_names=["input"],
        output_names=["embedding"],
        dynamic_axes={"input": {0: "batch"}, "embedding": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    with torch.no_grad():
        traced = io.BytesIO()
        torch.jit.save(torch.jit.trace(net, example), traced)
    (folder / "recognition.pt").write_bytes(without_debug_records(traced))


def embed(net: nn.Module, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Sum of the embeddings of the faces and of their mirror images."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(faces), 128):
            batch = to_input(faces[start : start + 128])
            parts.append((net(batch) + net(batch.flip(3))).numpy())
    return np.concatenate(parts)


def tar_at_far(
    scores: NDArray[np.float32], genuine: NDArray[np.bool_], far: float
) -> tuple[float, int]:
    """Highest TAR whose FAR is at most `far`, and its number of false accepts."""
    impostors = np.sort(scores[~genuine])[::-1]
    allowed = int(far * len(impostors))
    accepted = scores[genuine] > impostors[allowed]
    return float(accepted.mean()), int((impostors > impostors[allowed]).sum())


def evaluate_faces(net: nn.Module, workers: int) -> None:
    """Face against face, on people of no sample and not trained on."""
    people, images = 150, 10
    faces = draw_faces(HELD_OUT_SEED, 0, people, images, workers)
    features = embed(net, faces)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    first, second = np.triu_indices(len(features), 1)
    scores = (features @ features.T)[first, second]
    genuine = first // images == second // images
    for far in (1e-4, 1e-3, 1e-2):
        tar, false = tar_at_far(scores, genuine, far)
        print(f"held-out faces: TAR@FAR {far:g} = {tar:.4f} ({false} false accepts)", flush=True)


def evaluate_sample(net: nn.Module) -> None:
    """Templates of the IJB-C sample: norm kept, detector score on, flip sum, rule `at_most`."""
    root = sample.sample_path("ijbc")
    meta = root / "meta"
    begun = time.perf_counter()
    table = np.loadtxt(meta / "ijbc_name_5pts_score.txt", dtype=str)
    numbers = table[:, 1:].astype(float)
    faces = [
        align(
            cv2.cvtColor(cv2.imread(str(root / "loose_crop" / name)), cv2.COLOR_BGR2RGB),
            row[:10].reshape(5, 2),
        )
        for name, row in zip(table[:, 0], numbers, strict=True)
    ]
    media = np.loadtxt(meta / "ijbc_face_tid_mid.txt", dtype=str)[:, 1:].astype(int)
    pairs = np.loadtxt(meta / "ijbc_template_pair_label.txt", dtype=int)
    features = embed(net, np.stack(faces)) * numbers[:, 10:].astype(np.float32)
    templates = {}
    for template in np.unique(media[:, 0]):
        own = media[:, 0] == template
        parts = [features[own & (media[:, 1] == m)].mean(0) for m in np.unique(media[own, 1])]
        total = np.sum(parts, axis=0)
        templates[template] = total / np.linalg.norm(total)
    scores = np.array([templates[a] @ templates[b] for a, b, _ in pairs])
    print(f"sample evaluated in {time.perf_counter() - begun:.1f} s", flush=True)
    print(f"{len(faces)} faces, {len(templates)} templates, {len(pairs)} pairs")
    for far in (1e-4, 1e-3, 1e-2):
        tar, false = tar_at_far(scores, pairs[:, 2] == 1, far)
        print(f"sample ijbc: TAR@FAR {far:g} = {tar:.4f} ({false} false accepts)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--people", type=int, default=1600)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--margin", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=PACKAGE)
    parser.add_argument("--cache", type=Path, help="keep the drawn training faces in this .npy")
    parser.add_argument("--evaluate-only", action="store_true")
    options = parser.parse_args()
    if not options.evaluate_only:
        export(train(training_faces(options), options.images, options), options.out)
    net = torch.jit.load(str(options.out / "recognition.pt"))
    evaluate_faces(net, options.workers)
    evaluate_sample(net)


def training_faces(options: argparse.Namespace) -> NDArray[np.uint8]:
    """Draw the training faces, or take them from the cache."""
    if options.cache and options.cache.is_file():
        cached: NDArray[np.uint8] = np.load(options.cache, mmap_mode="r")
        return cached
    begun = time.perf_counter()
    faces = draw_faces(
        TRAINING_SEED, FIRST_TRAINING_SUBJECT, options.people, options.images, options.workers
    )
    print(f"{len(faces)} faces drawn in {time.perf_counter() - begun:.0f} s", flush=True)
    if options.cache:
        np.save(options.cache, faces)
    return faces


if __name__ == "__main__":
    main()
