"""The page without a browser: what it holds, and that its numbers are those of the scores."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from page_results import HOSTILE, detector_result, distances, pairs_result, ran, result, write_bench

from evalkit.cli import main
from evalkit.report.markdown import escape
from evalkit.report.page import render, write_page, write_report
from evalkit.report.page.gather import load_bench, of_results, of_signoff
from evalkit.report.page.glance import mode_row
from evalkit.report.page.tables import figures
from evalkit.report.page.texts import csv_text, markdown, report_tables
from evalkit.verdict.signoff.record import Signoff

Write = Callable[..., Path]


class Reader(HTMLParser):
    """Collects the elements and the texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open = tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open, []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page(record: Signoff, tmp_path: Path) -> str:
    return render(of_signoff(record, tmp_path))


def test_the_verdict_comes_first(page: str) -> None:
    places = [page.index(f'id="{name}"') for name in ("verdict", "glance", "concerns", "panel-p0")]
    assert places == sorted(places)
    assert 'id="verdict">FAIL<' in page
    assert "<title>FAIL: release 1.4</title>" in page


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    read = Reader(page)
    assert not [tag for tag, _ in read.elements if tag in {"link", "iframe", "object", "embed"}]
    assert all("src" not in attributes for attributes in read.all("script"))
    assert all((a["src"] or "").startswith("data:image/jpeg;") for a in read.all("img"))
    assert all((a.get("href") or "").startswith("#") for a in read.all("a"))
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_the_policy_lets_only_the_pages_own_script_and_style_in(page: str) -> None:
    policy = next(a["content"] or "" for a in Reader(page).all("meta") if "http-equiv" in a)
    for kind, pattern in (
        ("style", r"<style>(.*?)</style>"),
        ("script", r"<script>(.*?)</script>"),
    ):
        (text,) = re.findall(pattern, page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not any("style" in attributes for _, attributes in Reader(page).elements)


def test_the_page_is_built_to_be_read_by_anyone(page: str) -> None:
    read = Reader(page)
    assert read.all("html")[0]["lang"] == "en"
    assert all(attributes.get("scope") in {"row", "col"} for attributes in read.all("th"))
    assert all(attributes.get("alt") for attributes in read.all("img"))
    pictures = [a for a in read.all("svg") if a.get("aria-hidden") != "true"]
    assert all(attributes.get("role") == "img" for attributes in pictures)
    ids = [a["id"] for _, a in read.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    for name in ("aria-labelledby", "aria-controls", "for"):
        wanted = [a[name] or "" for _, a in read.elements if a.get(name)]
        assert {part for text in wanted for part in text.split()} <= set(ids), name


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    names = {"name": HOSTILE, "file": HOSTILE, "sha256": HOSTILE, "preprocessing": {HOSTILE: 1}}
    path = tmp_path / "x.json"
    pairs_result(
        path, HOSTILE, "fp32", model=names, command=HOSTILE, environment={HOSTILE: HOSTILE}
    )
    write_bench(tmp_path / "bench.json")
    report = of_results([path], benches=[tmp_path / "bench.json"], title=HOSTILE, command=HOSTILE)
    page = render(report)
    read = Reader(page)
    assert len(read.all("script")) == 2
    assert not [a for _, a in read.elements if "onerror" in a]
    (text,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL
    )
    assert "<" not in text
    assert HOSTILE in json.dumps(json.loads(text), ensure_ascii=False).replace('\\"', '"')
    assert "<img" not in markdown(report)


def test_the_data_are_the_counts_of_the_scores(record: Signoff, page: str) -> None:
    text = re.findall(r'id="data">(.*?)</script>', page, re.DOTALL)[0]
    held = json.loads(text)["thresholds"]["p0"]
    for run, loss in zip(held["runs"], (0.0, 0.001, 0.8), strict=True):
        scores = distances(loss)
        similar = np.where(np.isfinite(scores["distances"]), 1 - scores["distances"] / 2, -np.inf)
        for place in (0, held["start"], len(held["thresholds"]) - 1):
            called = similar >= held["thresholds"][place]
            assert run["true"][place] == np.count_nonzero(called & scores["issame"])
            assert run["false"][place] == np.count_nonzero(called & ~scores["issame"])
    assert held["thresholds"][held["start"]] == pytest.approx(0.4, abs=1e-12)


def test_markdown_and_csv_hold_the_pages_tables(record: Signoff, tmp_path: Path, page: str) -> None:
    report = of_signoff(record, tmp_path)
    rows = list(csv.reader(io.StringIO(csv_text(report))))
    told = markdown(report)
    for table in report_tables(report):
        assert f"## {escape(table.title)}\n" in told
        for row in table.rows:
            inert = [text.removeprefix("'") for text in (table.title, *row)]
            assert inert in [[text.removeprefix("'") for text in held] for held in rows]
    assert ["table", "what", "of", "value"] in rows
    for text in ("A onnxruntime:fp32", "78.67", "-30.000", "0.60"):
        assert text in csv_text(report)
        assert text in page


def test_a_formula_in_a_name_is_quoted_in_csv(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    pairs_result(path, "onnxruntime", "fp32", command="=1+1")
    assert "'=1+1" in csv_text(of_results([path]))


def test_results_without_a_sign_off_are_not_judged(write_pairs: Write, tmp_path: Path) -> None:
    paths = [write_pairs("a", "onnxruntime", "fp32"), write_pairs("b", "torch", "bf16", 0.4)]
    detector = tmp_path / "det.json"
    detector_result(detector, "onnxruntime", "fp32")
    report = of_results([*paths, detector], baselines=[paths[0]])
    page = render(report)
    assert 'id="verdict">NOT JUDGED<' in page
    assert [group.task for group in report.groups] == ["lfw", "widerface"]
    assert [entry.reference for entry in report.groups[0].entries] == [True, False]
    assert report.groups[0].entries[1].comparison is not None
    assert report.groups[1].entries[0].run == 0  # one letter in the whole page
    assert "Precision over recall: hard" in page
    assert "PASS<" not in page


def test_a_result_that_cannot_be_compared_or_drawn_says_why(
    write_pairs: Write, tmp_path: Path
) -> None:
    first = write_pairs("a", "onnxruntime", "fp32")
    second = write_pairs("b", "torch", "bf16")
    detector = tmp_path / "det.json"
    detector_result(detector, "onnxruntime", "fp32")
    for path in (second, detector):
        path.with_name(f"{path.stem}.scores.npz").write_bytes(b"damaged")
    page = render(of_results([first, second, detector], baselines=[first]))
    assert "not compared" in page
    assert "No curves of torch:bf16: Cannot read the scores" in page
    assert "No curves of onnxruntime:fp32: Cannot read the scores" in page
    assert "Scores of onnxruntime:fp32" in page


def test_a_precision_that_ran_otherwise_is_told(write_pairs: Write) -> None:
    path = write_pairs("a", "torch", "fp16", ran={**ran("torch", "fp16"), "precision_ran": "fp32"})
    assert "ran: fp32" in render(of_results([path]))
    assert "A torch:fp32 (ran: fp32)" in markdown(of_results([path])).replace("\\", "")


def test_results_of_other_data_stand_apart(write_pairs: Write) -> None:
    other = {"name": "b", "sha256": "e" * 64, "content_sha256": "f" * 64, "counts": {}, "path": ""}
    paths = [write_pairs("a", "torch", "fp32"), write_pairs("b", "torch", "fp32", dataset=other)]
    assert len(of_results(paths).groups) == 2


def test_runs_of_one_mode_are_told_apart(write_pairs: Write) -> None:
    paths = [write_pairs(name, "torch", "fp32") for name in ("a", "b")]
    labels = [entry.label for entry in of_results(paths).groups[0].entries]
    assert len(set(labels)) == 2
    assert labels[0].startswith("a.json")


def test_speed_is_shown_of_the_model_that_ran(write_pairs: Write, tmp_path: Path) -> None:
    write_bench(tmp_path / "bench.json")
    other = {"name": "other", "file": None, "sha256": "9" * 64, "preprocessing": {}}
    same = write_pairs("a", "onnxruntime", "int8")
    else_ = write_pairs("b", "onnxruntime", "fp32", model=other)
    report = of_results([same, else_], benches=[tmp_path / "bench.json"])
    first, second = report.groups[0].entries
    timing = report.timing(first)
    assert timing is not None
    assert (timing.precision, timing.batch_size) == ("int8", 1)
    assert report.timing(second) is None
    page = render(report)
    assert "Latency of a batch" in page
    assert "not measured of net" in page


def test_without_a_reference_speed_is_shown_as_it_is(write_pairs: Write) -> None:
    paths = [write_pairs("a", "onnxruntime", "int8"), write_pairs("b", "torch", "fp32")]
    report = of_results(paths)
    assert report.reference is None
    for run, entry in enumerate(report.groups[0].entries):
        assert entry.result is not None
        assert entry.result.throughput is not None
        speed = mode_row(report, run, entry.label).speed
        assert speed == f"{entry.result.throughput:,.1f}\N{NO-BREAK SPACE}images/s"
    judged = of_results(paths, baselines=[paths[0]])
    assert judged.reference is not None
    label = judged.groups[0].entries[1].label
    assert mode_row(judged, 1, label).speed.endswith(" x")


def test_what_is_gone_is_said(record: Signoff, tmp_path: Path) -> None:
    (tmp_path / "int8.json").unlink()
    page = render(of_signoff(record, tmp_path))
    assert "Scores of onnxruntime:fp16" in page
    assert "Scores of onnxruntime:int8" not in page
    assert "Not shown: nowhere" in page  # the pairs' own file


def test_a_large_set_makes_a_small_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    genuine = np.arange(300_000) < 5_000
    paths = []
    for number in range(6):
        values = rng.normal(0, 0.1, genuine.size).astype(np.float32) + 0.6 * genuine
        path = tmp_path / f"{number}.json"
        metric = {"name": "tar@far=1e-04", "value": 0.9, "rule": "at_most", "at": {"far": 1e-4}}
        made = result("IJBC", "torch", "fp32", metrics=[metric])
        pairs = np.arange(600_000).reshape(-1, 2)
        who = {"template_id": pairs.ravel(), "subject_id": pairs.ravel() // 2}
        made.save(path, {"scores": values, "genuine": genuine, "pairs": pairs, **who})
        paths.append(path)
    out = write_report(tmp_path / "report.html", of_results(paths))
    assert out.stat().st_size < 1_000_000


def test_write_page_returns_its_path(record: Signoff, tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "report.html"
    assert write_page(path, record, tmp_path) == path
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_command_line_writes_each_form(
    write_pairs: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = write_pairs("a", "onnxruntime", "fp32"), write_pairs("b", "torch", "bf16", 0.4)
    write_bench(tmp_path / "bench.json")
    options = ["--baseline", str(first), "--bench", str(tmp_path / "bench.json")]
    for suffix, start in ((".html", "<!doctype html>"), (".md", "# "), (".csv", "table,run")):
        out = tmp_path / f"report{suffix}"
        assert main(["report", str(first), str(second), *options, "--out", str(out)]) == 0
        assert out.read_text(encoding="utf-8").startswith(start)
        assert str(out) in capsys.readouterr().out


def test_the_command_line_reads_a_sign_off(record: Signoff, tmp_path: Path) -> None:
    saved = record.save(tmp_path)
    out = tmp_path / "again.html"
    assert main(["report", str(saved), "--out", str(out)]) == 0
    assert 'id="verdict">FAIL<' in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.json"], "Cannot read the result"),
        (["{a}", "--out", "report.pdf"], "ends in .html, .md, .csv"),
        (["{a}", "--out", "."], "is a folder"),
        (["{a}", "--bench", "{a}"], "is not a result of evalkit bench"),
        (["{a}", "--bench", "absent.json"], "Cannot read"),
        (["signoff.json", "{a}"], "stands alone"),
    ],
)
def test_wrong_use_is_explained(
    words: list[str],
    message: str,
    write_pairs: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_pairs("a", "onnxruntime", "fp32")
    assert main(["report", *(word.format(a=path) for word in words)]) == 2
    assert message in capsys.readouterr().err


def test_a_bench_file_is_read_back(tmp_path: Path) -> None:
    made = write_bench(tmp_path / "bench.json")
    assert load_bench(tmp_path / "bench.json") == made


def test_concerns_with_one_reason_share_an_entry(record: Signoff, tmp_path: Path) -> None:
    cells = [
        cell.model_copy(update={"outcome": "not_run", "reason": "left out", "run": None})
        for cell in record.cells[1:]
    ]
    changed = record.model_copy(
        update={"cells": (record.cells[0], *cells), "warnings": ("first", "second")}
    )
    page = render(of_signoff(changed, tmp_path))
    assert page.count("<b>pairs / onnxruntime:fp16, pairs / onnxruntime:int8</b>") == 1
    assert "first\nsecond" in page


def test_results_without_scores_are_shown_without_curves(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for protocol, metric in (
        ("LFW", "accuracy/exact"),
        ("IJBC", "tar@far=1e-04"),
        ("WIDERFACE", "ap/hard"),
    ):
        metrics = [
            {"name": metric, "value": 0.9, "rule": "r", "counts": {}, "at": {"threshold": 1}}
        ]
        result(protocol, "torch", "fp32", metrics=metrics).save(path)
        page = render(of_results([path]))
        assert "90.00" in page
        assert 'class="remark"' in page
        assert "<figure" not in page


def test_the_figures_hide_parts_and_mark_what_rests_on_little_data(tmp_path: Path) -> None:
    made = detector_result(tmp_path / "r.json", "onnxruntime", "fp32")
    few = made.metrics[0].model_copy(update={"name": "few", "flags": ("too_few_faces",)})
    for name in ("height", "event"):
        part = few.model_copy(update={"name": name, "part": {name: "x"}})
        made = made.model_copy(update={"metrics": (*made.metrics, part)})
    made.save(tmp_path / "r.json")
    (group,) = of_results([tmp_path / "r.json"]).groups
    table = figures(group)
    rows = {row[0]: row for row in table.rows}
    assert set(rows) == {*(metric.name for metric in made.metrics)} - {"event"}
    assert rows["height"][2].endswith("*")
    assert not rows["ap/easy"][2].endswith("*")
    assert table.notes == (
        "Rates in per cent. *: fewer than 30 faces are counted, too few to judge on.",
    )
