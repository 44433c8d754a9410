"""The content of a report, out of a sign-off's record or out of result files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evalkit.bench import BenchResult, Timing
from evalkit.core.errors import EvalkitError, InputError
from evalkit.core.results import READY_MADE, Metric, Result, load_result
from evalkit.tasks import TASKS, title_of
from evalkit.tasks.panels import Runs, Scored
from evalkit.verdict.comparable import mismatches, run_label
from evalkit.verdict.compare import Comparison, compare
from evalkit.verdict.paired import load_scores
from evalkit.verdict.signoff.record import Cell, Overall, ProtocolRecord, Signoff


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One run of a group.

    Attributes
    ----------
    run : int
        Its letter, colour and dashes.
    label : str
        ``torch:int8``.
    path, result : optional
        Its result file and what that holds; None where there is none.
    cell : Cell or None
        The sign-off's verdict on it.
    comparison : Comparison or None
        With the reference.
    problem : str
        Why there is no result, or no comparison.
    """

    run: int
    label: str
    reference: bool
    path: Path | None = None
    result: Result | None = None
    cell: Cell | None = None
    comparison: Comparison | None = None
    problem: str = ""

    def metric(self, name: str) -> Metric | None:
        """Return a figure, None where there is none."""
        metrics = self.result.metrics if self.result else ()
        return next((metric for metric in metrics if metric.name == name), None)

    def scored(self, result: Result) -> Scored:
        """Return the run with the evidence beside its result, for the panels of its task."""
        drift = (
            next((one for one in self.comparison.drift if one.worst), None)
            if self.comparison
            else None
        )
        moved = [(worst.name, worst.cosine) for worst in drift.worst] if drift else []
        run = Scored(self.run, self.label, self.reference, result, moved=moved)
        if self.path is None or result.scores_file is None:
            return run
        try:
            arrays = load_scores(self.path, result)
            return replace(run, evidence=TASKS.get(result.task)().read(arrays, result))
        except EvalkitError as error:
            return replace(run, problem=str(error))


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The runs of one protocol on the same data.

    Attributes
    ----------
    task : str
        Registered name of the benchmark.
    primary : str
        Name of the figure that is shown first.
    margin : float or None
        The loss accepted, 0 to 1.
    margin_text : str
        As the plan says it.
    drift_limit : float or None
        Least first percentile of the cosines to the reference.
    """

    key: str
    name: str
    task: str
    primary: str
    entries: tuple[Entry, ...]
    margin: float | None = None
    margin_text: str = ""
    drift_limit: float | None = None

    @property
    def ran(self) -> list[tuple[Entry, Result]]:
        """The runs that have a result."""
        return [(entry, entry.result) for entry in self.entries if entry.result is not None]

    @property
    def reference(self) -> Entry | None:
        """The run that all others are compared with, if there is one."""
        return next((entry for entry in self.entries if entry.reference), None)

    def runs(self) -> Runs:
        """Return the runs that have a result, with the evidence beside each."""
        scored = tuple(entry.scored(result) for entry, result in self.ran)
        return Runs(scored, self.primary, self.drift_limit)


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """Everything that the page shows.

    Attributes
    ----------
    outcome : {"pass", "fail", "inconclusive"} or None
        None where nothing was judged.
    """

    title: str
    outcome: Overall | None
    reason: str
    when: str
    command: str
    groups: tuple[Group, ...]
    benches: tuple[BenchResult, ...] = ()
    warnings: tuple[str, ...] = ()
    record: Signoff | None = None

    @property
    def modes(self) -> list[str]:
        """The runs' labels, by letter."""
        named = {entry.run: entry.label for group in self.groups for entry in group.entries}
        return [named[run] for run in sorted(named)]

    @property
    def reference(self) -> str | None:
        """Label of the run that all others are compared with, if there is one."""
        references = (group.reference for group in self.groups)
        return next((entry.label for entry in references if entry), None)

    def timing(self, entry: Entry) -> Timing | None:
        """Return how fast a run's model ran its smallest batch, if that was measured."""
        if entry.result is None:
            return None
        ran, model = entry.result.ran, entry.result.model.sha256
        timings = [
            timing
            for bench in self.benches
            for timing in bench.timings
            if timing.model is not None
            and timing.latency_ms is not None
            and timing.model.sha256 == model
            and (timing.backend, timing.precision) == (ran.backend, ran.precision_requested)
        ]
        return min(timings, key=lambda timing: timing.batch_size) if timings else None


def of_signoff(record: Signoff, folder: Path, *, benches: Sequence[BenchResult] = ()) -> Report:
    """Read what a sign-off's page shows; the page names results that are gone.

    Parameters
    ----------
    record : Signoff
    folder : Path
        Where it stands: the result files' names are relative to it.
    benches : sequence of BenchResult
        Speed measurements beside the record's own.
    """
    groups = tuple(_signed_group(record, protocol, folder) for protocol in record.protocols)
    return Report(
        title=record.name,
        outcome=record.outcome,
        reason=record.reason,
        when=record.finished,
        command=record.command,
        groups=groups,
        benches=(*_benches(record.bench), *benches),
        warnings=record.warnings,
        record=record,
    )


def of_results(
    results: Sequence[Path],
    *,
    baselines: Sequence[Path] = (),
    benches: Sequence[Path] = (),
    title: str = "",
    command: str = "",
) -> Report:
    """Read what the page of result files shows: a group for each protocol and data set.

    Parameters
    ----------
    results : sequence of Path
    baselines : sequence of Path
        Runs that those on the same data are compared with.
    benches : sequence of Path
        Speed measurements.

    Raises
    ------
    evalkit.core.errors.InputError
        A file is missing, or is not what it should be.
    """
    paths = list(dict.fromkeys([*baselines, *results]))
    loaded = [(path, load_result(path)) for path in paths]
    groups: list[list[tuple[Path, Result]]] = []
    for path, result in loaded:
        like = next((rows for rows in groups if _together(rows[0][1], result)), None)
        if like is None:
            groups.append([(path, result)])
        else:
            like.append((path, result))
    runs: dict[str, int] = {}
    made = tuple(
        _plain_group(f"g{number}", rows, baselines, runs) for number, rows in enumerate(groups)
    )
    partial = [str(path) for path, result in loaded if result.status == "partial"]
    return Report(
        title=title or ", ".join(dict.fromkeys(group.name for group in made)),
        outcome=None,
        reason="These results were not judged. evalkit gate and evalkit signoff judge.",
        when=max(result.started for _, result in loaded),
        command=command,
        groups=made,
        benches=tuple(load_bench(path) for path in benches),
        warnings=tuple(f"{path} is a quick look at a part of the data" for path in partial),
    )


def load_bench(path: Path) -> BenchResult:
    """Read a file of ``evalkit bench --output``.

    Raises
    ------
    evalkit.core.errors.InputError
        It is missing, or something else.
    """
    try:
        return BenchResult.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.") from error
    except ValidationError as error:
        raise InputError(
            f"{path} is not a result of evalkit bench. Give a file of evalkit bench --output."
        ) from error


def _benches(bench: dict[str, Any] | None) -> tuple[BenchResult, ...]:
    """Read a record's speed measurement: one, or several by name."""
    if not bench:
        return ()
    try:
        values = [bench] if "timings" in bench else list(bench.values())
        return tuple(BenchResult.model_validate_json(json.dumps(value)) for value in values)
    except ValidationError as error:
        raise InputError(f"The sign-off's speed measurement is damaged: {error}.") from error


def _signed_group(record: Signoff, protocol: ProtocolRecord, folder: Path) -> Group:
    cells = [cell for cell in record.cells if cell.protocol == protocol.name]
    entries = []
    for cell in cells:
        entry = Entry(
            run=record.modes.index(cell.mode),
            label=cell.mode,
            reference=cell.outcome == "reference" or cell.mode == str(record.plan.reference_mode),
            cell=cell,
            comparison=cell.comparison,
            problem=cell.reason if cell.run is None else "",
        )
        if cell.run is not None:
            path = folder / cell.run.result
            try:
                entry = replace(entry, path=path, result=load_result(path))
            except InputError as error:
                entry = replace(entry, problem=str(error))
        entries.append(entry)
    plan = next(p for p in record.plan.protocols if p.name == protocol.name)
    tests = [cell.test for cell in cells if cell.test is not None]
    return Group(
        key=f"p{record.protocols.index(protocol)}",
        name=protocol.name,
        task=protocol.kind,
        primary=protocol.primary,
        entries=tuple(entries),
        margin=tests[0].margin if tests else plan.margin.points and plan.margin.points / 100,
        margin_text=protocol.margin,
        drift_limit=plan.limits.drift_cosine_p1,
    )


def _together(first: Result, second: Result) -> bool:
    """Whether two results are of the same data by the same rules."""
    return not mismatches(first, second)


def _plain_group(
    key: str, rows: list[tuple[Path, Result]], baselines: Sequence[Path], runs: dict[str, int]
) -> Group:
    """Make a group; `runs` gives a label the same letter in every group."""
    first = rows[0][1]
    baseline = next((path for path, _ in rows if path in baselines), None)
    entries = []
    for (path, result), label in zip(rows, _labels(rows), strict=True):
        entry = Entry(runs.setdefault(label, len(runs)), label, path == baseline, path, result)
        if baseline is not None and path != baseline:
            try:
                entry = replace(entry, comparison=compare(baseline, path))
            except EvalkitError as error:
                entry = replace(entry, problem=str(error))
        entries.append(entry)
    return Group(
        key=key,
        name=f"{title_of(first.task)}: {first.dataset.name}",
        task=first.task,
        primary=first.headline.name if first.headline else "",
        entries=tuple(entries),
    )


def _labels(rows: list[tuple[Path, Result]]) -> list[str]:
    """Name runs as shortly as tells them apart."""

    def mode(path: Path, result: Result) -> str:
        if result.ran.backend == READY_MADE:
            return result.model.name
        # "int8 (36 of 51 kernels)": the page tells what is in brackets beside the run.
        return f"{result.ran.backend}:{result.ran.precision_ran.partition(' ')[0]}"

    def named(path: Path, result: Result) -> str:
        return f"{result.model.name}, {mode(path, result)}"

    def filed(path: Path, result: Result) -> str:
        return f"{path.name}: {run_label(result)}"

    for way in (mode, named, filed):
        labels = [way(*row) for row in rows]
        if len(set(labels)) == len(labels):
            break
    return labels
