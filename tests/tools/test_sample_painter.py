"""The painter of the sample: the same bytes again, and what it paints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from evalkit.datasets.errors import DatasetError
from evalkit.datasets.ijb import load_ijb
from sample_painter import KINDS, LIMITS, Kind, ijb, lfw, paint, widerface
from sample_painter.photo import photograph
from sample_painter.traits import FIRST_TRAINING_SUBJECT, conditions, identity

TINY: dict[Kind, int] = {"ijb": 3, "lfw": 40, "widerface": 4}
TOOL = Path(__file__).parents[2] / "tools" / "paint_sample.py"


def _contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _picture(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


@pytest.mark.parametrize("kind", KINDS)
def test_same_bytes_again(kind: Kind, tmp_path: Path) -> None:
    for name in ("once", "again"):
        paint(kind, tmp_path / name, size=TINY[kind])
    once = _contents(tmp_path / "once")
    assert len(once) > 1
    assert once == _contents(tmp_path / "again")


def test_another_seed_is_another_population() -> None:
    assert identity(0, 3) == identity(0, 3)
    assert identity(0, 3) != identity(1, 3)
    assert identity(0, 3) != identity(0, 4)
    assert photograph(0, 3, 1).jpeg != photograph(0, 3, 2).jpeg
    assert photograph(0, 3, 1).jpeg != photograph(0, 3, 1, frame=1).jpeg


def test_eye_points_lie_on_dark_pupils() -> None:
    """Ground truth against what was drawn; a dark face with a catch light may differ."""
    darker = []
    for subject in range(40):
        how = conditions(0, subject, 0, 0.2)
        if how.glasses or how.mask or how.bar or how.blur or how.motion or how.eye_open < 0.9:
            continue
        photo = photograph(0, subject, 0, hardness=0.2, size=300)
        grey = cv2.cvtColor(_picture(photo.jpeg), cv2.COLOR_BGR2GRAY).astype(float)
        for x, y in np.round(photo.points[:2]).astype(int):
            pupil = grey[y - 1 : y + 2, x - 1 : x + 2].mean()
            around = np.median(grey[y - 8 : y + 9, x - 16 : x + 17])
            darker.append(pupil < around)
    assert len(darker) >= 40
    assert np.mean(darker) > 0.85


@pytest.mark.parametrize("pairs", [40, 1000, 60])
def test_lfw_pairs_are_what_their_flags_say(pairs: int) -> None:
    chosen, same = lfw._photographs(pairs)
    assert len(set(chosen)) == len(chosen) == 2 * pairs
    people = np.array(chosen)[:, 0].reshape(-1, 2)
    assert (people[:, 0] == people[:, 1]).tolist() == same
    folds = [set(part.ravel().tolist()) for part in np.split(people, 10)]
    assert sum(map(len, folds)) == len(set().union(*folds))


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_leaves_nothing(kind: Kind, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        paint(kind, tmp_path / "out", size=TINY[kind], progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_every_picture(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    paint("widerface", tmp_path / "w", size=4, progress=lambda *c: calls.append(c))
    assert calls == [(i, 4) for i in range(1, 5)]


@pytest.mark.parametrize(("kind", "size"), [("lfw", 41), ("lfw", 20), ("ijb", 1), ("widerface", 0)])
def test_sizes_out_of_range(kind: Kind, size: int, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="Give"):
        paint(kind, tmp_path / "out", size=size)


def test_evaluated_people_are_not_trained_on() -> None:
    """Every subject that a writer can draw lies below the first one of training."""
    limits = {kind: high for kind, (_, high) in LIMITS.items()}
    assert limits["ijb"] < FIRST_TRAINING_SUBJECT
    assert limits["lfw"] < FIRST_TRAINING_SUBJECT
    assert limits["widerface"] * widerface._MOST_FACES <= FIRST_TRAINING_SUBJECT
    assert max(crowd.faces[1] for crowd in widerface.EVENTS.values()) <= widerface._MOST_FACES
    plan = ijb._plan(0, 50)
    assert max(face.subject for face in plan.faces) < 50
    assert max(subject for subject, _ in lfw._photographs(1000)[0]) < 1000
    trained = {identity(20_000, FIRST_TRAINING_SUBJECT + i) for i in range(200)}
    assert not trained & {identity(0, i) for i in range(200)}


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, TOOL, *words], capture_output=True, text=True, check=False
    )


def test_the_tool_paints_what_the_options_say(tmp_path: Path) -> None:
    words = ("--kind", "ijb", "--size", "3", "--seed", "7", "--out", str(tmp_path / "out"))
    done = _run(*words)
    assert done.returncode == 0, done.stderr
    marker = json.loads((tmp_path / "out" / "evalkit-sample.json").read_text())
    assert (marker["seed"], marker["parameters"]["subjects"]) == (7, 3)
    for protocol in ("IJBB", "IJBC"):
        release = load_ijb(tmp_path / "out", protocol)
        assert release.warnings == ()
        assert len(release.pairs) == 3 * 3 * ijb.probes_of(3)
    again = _run(*words)
    assert again.returncode == 2
    assert "new or an empty folder" in again.stderr


def test_the_tool_wants_a_size_for_a_kind() -> None:
    assert "--kind needs --size" in _run("--kind", "lfw", "--out", "x").stderr
