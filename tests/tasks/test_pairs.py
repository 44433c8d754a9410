"""``evalkit pairs``: one's own pairs of images, embeddings of them, or ready scores."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from command import Command
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from evalkit.core.errors import InputError
from evalkit.core.results import load_result
from evalkit.datasets.alignment import ARCFACE_POINTS
from evalkit.datasets.errors import DatasetError
from evalkit.datasets.lfw import load_bin
from evalkit.tasks import TASKS
from evalkit.tasks.pairs.figures import evidence_of, metrics_of
from evalkit.tasks.pairs.table import read_pairs, read_scores

HEADER = ("path1", "path2", "same", "subject1", "subject2")


def write(path: Path, rows: Sequence[Sequence[object]], header: Sequence[str] = HEADER) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header[: len(rows[0])], *rows])
    return path


def scores_file(path: Path, scores: np.ndarray, same: np.ndarray) -> Path:
    return write(path, list(zip(scores, same.astype(int), strict=True)), ("score", "same"))


def brute_fnmr(scores: np.ndarray, same: np.ndarray, fmr: float) -> float:
    """Try every threshold between distinct scores; the lowest FNMR whose FMR is at most `fmr`."""
    best = 1.0
    for threshold in [*np.unique(scores), np.inf]:
        accepted = scores >= threshold
        if np.mean(accepted[~same]) <= fmr:
            best = min(best, float(np.mean(~accepted[same])))
    return best


def brute_accuracy(scores: np.ndarray, same: np.ndarray) -> float:
    return max(
        float(np.mean((scores >= threshold) == same)) for threshold in [*np.unique(scores), np.inf]
    )


@given(
    st.lists(st.tuples(st.integers(-8, 8), st.booleans()), min_size=2, max_size=60).filter(
        lambda rows: len({same for _, same in rows}) == 2
    ),
    st.sampled_from([1e-3, 0.1, 0.25, 0.5]),
)
@settings(max_examples=200)
def test_figures_equal_brute_force(rows: list[tuple[int, bool]], fmr: float) -> None:
    scores = np.array([score / 8 for score, _ in rows])
    same = np.array([label for _, label in rows])
    found = {metric.figure: metric for metric in metrics_of(evidence_of(scores, same, None), [fmr])}
    assert found["fnmr"].value == pytest.approx(brute_fnmr(scores, same, fmr), abs=1e-15)
    assert found["accuracy"].value == pytest.approx(brute_accuracy(scores, same), abs=1e-15)
    accepted = scores >= found["accuracy"].at["similarity"]
    assert np.count_nonzero(accepted == same) == found["accuracy"].counts["correct"]


def test_pairs_without_a_score_are_refused() -> None:
    scores = np.array([0.9, np.nan, 0.1, np.nan])
    same = np.array([True, True, False, False])
    fnmr, *_, accuracy = metrics_of(evidence_of(scores, same, None), [0.5])
    assert (fnmr.value, fnmr.counts["genuine"]) == (0.5, 2)
    assert accuracy.value == 0.75


def test_ready_scores(evalkit: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    same = np.arange(400) % 2 == 0
    scores = np.round(rng.normal(np.where(same, 0.5, 0.0), 0.2), 6)
    file = scores_file(tmp_path / "s.csv", scores, same)
    out = tmp_path / "r.json"
    assert evalkit("pairs", "--scores", file, "--fmr", "0.1,0.2", "--output", out) == 0
    result = load_result(out)
    assert result.dataset.counts == {"pairs": 400, "genuine": 200, "impostors": 200}
    for fmr in (0.1, 0.2):
        metric = result.metric(f"fnmr@fmr={fmr:.0e}")
        assert metric.value == brute_fnmr(scores, same, fmr)
        assert metric.direction == "lower"
        assert metric.interval is not None
        assert "pair-level" in metric.interval.method
    assert result.headline is result.metric("fnmr@fmr=2e-01")  # 20 accepts at 0.1 are too few
    assert "fnmr@fmr=2e-01" in capsys.readouterr().out


def test_scores_that_fall_with_likeness_are_doubted(evalkit: Command, tmp_path: Path) -> None:
    same = np.arange(40) % 2 == 0
    out = tmp_path / "r.json"
    for sign, doubted in ((1, False), (-1, True)):
        scores = sign * np.where(same, 0.5, 0.1) + np.linspace(0, 0.1, 40)
        file = scores_file(tmp_path / "s.csv", scores, same)
        assert evalkit("pairs", "--scores", file, "--fmr", "0.1", "--output", out) == 0
        assert any("Check the labels" in text for text in load_result(out).warnings) is doubted


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    rows = [("a.png", "b.png", 1, "p", "p"), ("a.png", "c.png", 0, "p", "q")]
    table = read_pairs(write(tmp_path / "p.csv", rows))
    columns = [pa.array(column) for column in zip(*rows, strict=True)]
    parquet.write_table(pa.table(columns, names=HEADER), tmp_path / "p.parquet")
    other = read_pairs(tmp_path / "p.parquet")
    assert table.images == other.images == ("a.png", "b.png", "c.png")
    np.testing.assert_array_equal(table.sides, [[0, 1], [0, 2]])
    np.testing.assert_array_equal(table.sides, other.sides)
    np.testing.assert_array_equal(table.genuine, [True, False])
    np.testing.assert_array_equal(table.subjects, other.subjects)


def test_images_that_belong_together_share_a_group(tmp_path: Path) -> None:
    rows = [("a", "b", 1), ("c", "d", 1), ("b", "c", 0), ("e", "f", 0)]
    groups = read_pairs(write(tmp_path / "p.csv", rows)).groups()
    assert len(set(groups[:4].tolist())) == 1
    assert len(set(groups.tolist())) == 2
    named = [(*row, "p", "p" if row[2] else "q") for row in rows[:2]]
    people = read_pairs(write(tmp_path / "n.csv", named)).groups()
    assert len(set(people.tolist())) == 1


WRONG = {
    "no column": ([("a", "b")], HEADER[:2], "has no column same"),
    "label": ([("a", "b", "maybe")], HEADER, "p.csv:2: same is 'maybe'"),
    "empty path": ([("a", "b", 1), ("", "b", 1)], HEADER, "p.csv:3: path1 is empty"),
    "subjects": ([("a", "b", 1, "p", "q")], HEADER, "p.csv:2: same is 1, but the subjects are"),
    "one subject": ([("a", "b", 1, "p")], HEADER, "give both or none"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_table_names_the_line(case: str, tmp_path: Path) -> None:
    rows, header, message = WRONG[case]
    with pytest.raises(DatasetError, match=message):
        read_pairs(write(tmp_path / "p.csv", rows, header))


def test_a_score_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="column score does not hold numbers"):
        read_scores(write(tmp_path / "s.csv", [("high", 1)], ("score", "same")))


def test_paths_stay_below_their_folder(
    evalkit: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "p.csv", [("../a.png", "b.png", 1), ("c.png", "b.png", 0)])
    assert evalkit("pairs", "--data", file) == 2
    assert "p.csv:2" in capsys.readouterr().err


@pytest.mark.parametrize(("same", "kind"), [(1, "impostor"), (0, "genuine")])
def test_one_kind_of_pairs_cannot_be_scored(
    same: int, kind: str, evalkit: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = scores_file(tmp_path / "s.csv", np.array([0.1, 0.2]), np.array([same, same]))
    assert evalkit("pairs", "--scores", file) == 2
    assert f"has no {kind} pairs" in capsys.readouterr().err


def test_settings_that_do_not_go_together(
    evalkit: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evalkit("pairs", "--data", "p.csv", "--align", "5pt") == 2
    assert "--align 5pt needs --points" in capsys.readouterr().err
    assert evalkit("pairs", "--data", "p.csv", "--scores", "s.csv") == 2
    assert evalkit("pairs") == 2
    assert "--data" in capsys.readouterr().err


@pytest.fixture
def faces(tiny_lfw: Path, tmp_path: Path) -> Path:
    """The sample's pairs as a table, and their images beside it."""
    pairs = load_bin(tiny_lfw)
    folder = tmp_path / "faces"
    folder.mkdir()
    for index, data in enumerate(pairs.images):
        (folder / f"{index}.png").write_bytes(data)
    rows = [(f"{2 * row}.png", f"{2 * row + 1}.png", s) for row, s in enumerate(pairs.issame)]
    return write(folder / "pairs.csv", [(a, b, int(s)) for a, b, s in rows])


def test_a_model_scores_pairs_as_it_does_those_of_a_bin(
    evalkit: Command, tiny_lfw: Path, faces: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the cpu extra")
    model = ("--model", "sample-recognition")
    out, other = tmp_path / "r.json", tmp_path / "lfw.json"
    assert evalkit("pairs", "--data", faces, *model, "--flip", "--output", out) == 0
    assert evalkit("lfw", "--data", tiny_lfw, *model, "--output", other) == 0
    with np.load(tmp_path / "r.scores.npz") as saved, np.load(tmp_path / "lfw.scores.npz") as lfw:
        np.testing.assert_allclose(saved["similarity"], 1 - lfw["distances"] / 2, atol=1e-6)
        np.testing.assert_array_equal(saved["genuine"], lfw["issame"])
    assert load_result(out).status == "complete"
    assert evalkit("pairs", "--data", faces, *model, "--limit", 40, "--output", out) == 0
    assert load_result(out).status == "partial"


def test_ready_embeddings(evalkit: Command, faces: Path, tmp_path: Path) -> None:
    count = len(read_pairs(faces).images)
    rows = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    np.save(tmp_path / "e.npy", rows)
    out = tmp_path / "r.json"
    words = ("--embeddings", tmp_path / "e.npy", "--output", out)
    assert evalkit("pairs", "--data", faces, *words) == 0
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = [units[a] @ units[b] for a, b in read_pairs(faces).sides]
    with np.load(tmp_path / "r.scores.npz") as saved:
        np.testing.assert_allclose(saved["similarity"], expected, atol=1e-6)


def test_an_image_that_fails_is_named_and_refused(
    evalkit: Command, faces: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the cpu extra")
    (faces.parent / "3.png").write_bytes(b"no image")
    out = tmp_path / "r.json"
    words = ("--data", faces, "--model", "sample-recognition", "--output", out)
    assert evalkit("pairs", *words, "--max-failures", 0) == 2
    assert evalkit("pairs", *words) == 0
    assert [failure.name for failure in load_result(out).failures_to_enrol] == ["3.png"]
    with np.load(tmp_path / "r.scores.npz") as saved:
        assert np.flatnonzero(~np.isfinite(saved["similarity"])).tolist() == [1]


def test_evidence_of_named_pairs_draws_subjects() -> None:
    rng = np.random.default_rng(1)
    codes = np.array([(s, s) for s in range(30)] + [(s, (s + 1) % 30) for s in range(30)])
    same = codes[:, 0] == codes[:, 1]
    evidence = evidence_of(rng.normal(size=60) + same, same, codes)
    metrics = metrics_of(evidence, [0.1])
    draws = evidence.draw(200)
    assert evidence.unit == "subject"
    assert draws is not None
    values = evidence.replicates(metrics[0], draws)
    assert values is not None
    assert np.nanmin(values) <= metrics[0].value <= np.nanmax(values)
    task = TASKS.get("pairs")()
    read = task.read(evidence.arrays(), None)  # type: ignore[arg-type]  # the result is not read
    again = next(iter(read.values())).replicates(metrics[0], draws)
    np.testing.assert_array_equal(values, again)


def test_two_models_scores_of_the_same_pairs_compare(
    evalkit: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    same = np.arange(600) % 2 == 0
    one = np.round(rng.normal(np.where(same, 0.5, 0.0), 0.2), 6)
    files = [
        scores_file(tmp_path / f"{name}.csv", scores, same)
        for name, scores in (("one", one), ("two", one + np.round(rng.normal(0, 0.05, 600), 6)))
    ]
    outs = [tmp_path / "one.json", tmp_path / "two.json"]
    for file, out in zip(files, outs, strict=True):
        assert evalkit("pairs", "--scores", file, "--fmr", "0.2", "--output", out) == 0
    assert evalkit("compare", *outs) == 0
    assert evalkit("gate", outs[0], "--baseline", outs[0]) == 0
    capsys.readouterr()
    other = scores_file(tmp_path / "other.csv", one, ~same)
    assert evalkit("pairs", "--scores", other, "--output", outs[1]) == 0
    assert evalkit("compare", *outs) == 3


def test_each_pair_without_a_score_is_a_failure(evalkit: Command, tmp_path: Path) -> None:
    scores = np.where(np.arange(40) < 5, np.nan, np.linspace(0, 1, 40))
    file = scores_file(tmp_path / "s.csv", scores, np.arange(40) % 2 == 0)
    out = tmp_path / "r.json"
    assert evalkit("pairs", "--scores", file, "--max-failures", 4, "--output", out) == 2
    assert evalkit("pairs", "--scores", file, "--max-failures", 5, "--output", out) == 0
    names = [failure.name for failure in load_result(out).failures_to_enrol]
    assert names == [f"pair {row}" for row in range(1, 6)]


ODD = {
    "list": pa.table({"score": [0.5], "same": pa.array([[1]])}),
    "bytes": pa.table({"path1": pa.array([b"\xff\xfe"]), "path2": ["b"], "same": [1]}),
    "twice": pa.Table.from_arrays(
        [pa.array([0.5]), pa.array([1]), pa.array([1])], ["score", "same", "same"]
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_columns_are_errors_of_the_table(case: str, tmp_path: Path) -> None:
    file = tmp_path / "p.parquet"
    parquet.write_table(ODD[case], file)
    read = read_pairs if case == "bytes" else read_scores
    with pytest.raises(DatasetError, match=r"p\.parquet"):
        read(file)


def test_an_image_shows_one_subject(tmp_path: Path) -> None:
    rows = [("a", "b", 1, "p", "p"), ("a", "c", 0, "q", "r")]
    with pytest.raises(DatasetError, match=r"p\.csv:[23]: a shows"):
        read_pairs(write(tmp_path / "p.csv", rows))


@pytest.mark.parametrize(
    "damage",
    [
        {"sides": np.arange(60)},
        {"subjects": np.full((60, 2), 10**15)},
        {"subjects": np.full((60, 2), 0.5)},
        {"similarity": np.array(["x"] * 60)},
        {"genuine": None},
    ],
)
def test_damaged_scores_are_input_errors(damage: dict[str, np.ndarray | None]) -> None:
    arrays = {"similarity": np.linspace(0, 1, 60), "genuine": np.arange(60) % 2 == 0, **damage}
    kept = {name: value for name, value in arrays.items() if value is not None}
    with pytest.raises(InputError):
        TASKS.get("pairs")().read(kept, None)  # type: ignore[arg-type]


@pytest.fixture
def photographs(faces: Path) -> tuple[Path, Path]:
    """The pairs as photographs with five points each, which lie elsewhere than in a face."""
    names = read_pairs(faces).images
    template = ARCFACE_POINTS * 0.5 + 20
    lines = [f"{name} {' '.join(f'{v:.3f}' for v in template.ravel())}" for name in names]
    points = faces.parent / "points.txt"
    points.write_text("\n".join(lines))
    return faces, points


def test_photographs_are_aligned_as_pack_does(
    evalkit: Command, photographs: tuple[Path, Path], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the cpu extra")
    table, points = photographs
    model = ("--model", "sample-recognition")
    align = ("--align", "5pt", "--points", points)
    assert evalkit("pairs", "--data", table, *model, *align, "--output", tmp_path / "a.json") == 0
    listed = tmp_path / "list.csv"
    rows = list(csv.reader(table.open(encoding="utf-8")))[1:]
    write(listed, rows, ("path1", "path2", "label"))
    words = ("--pairs", listed, "--images", table.parent, "--out", tmp_path / "p.bin")
    assert evalkit("pack", "lfw", *words, *align) == 0
    lfw = ("--data", tmp_path / "p.bin", "--no-flip", "--output", tmp_path / "l.json")
    assert evalkit("lfw", *lfw, *model) == 0
    with np.load(tmp_path / "a.scores.npz") as ours, np.load(tmp_path / "l.scores.npz") as theirs:
        np.testing.assert_allclose(ours["similarity"], 1 - theirs["distances"] / 2, atol=1e-6)
    points.write_text(points.read_text().replace("39", "40"))
    assert evalkit("pairs", "--data", table, *model, *align, "--output", tmp_path / "b.json") == 0
    assert evalkit("compare", tmp_path / "a.json", tmp_path / "b.json") == 3  # other faces


def test_one_table_serves_pack_and_pairs(evalkit: Command, faces: Path, tmp_path: Path) -> None:
    words = ("--pairs", faces, "--images", faces.parent, "--out", tmp_path / "p.bin")
    assert evalkit("pack", "lfw", *words) == 0
    assert len(load_bin(tmp_path / "p.bin")) == len(read_pairs(faces))
    listed = tmp_path / "list.csv"
    listed.write_text(faces.read_text().replace("path1,path2,same", "path1,path2,label"))
    np.testing.assert_array_equal(read_pairs(listed).genuine, read_pairs(faces).genuine)
