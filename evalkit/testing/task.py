"""The contract of a task as tests that any task can be put through.

Derive a class from `TaskContract`, and give it a task and the settings of a quick run::

    from evalkit.testing import TaskContract
    from my_package.task import MyTask


    class TestMyTask(TaskContract):
        task = MyTask
        settings = {"data": "tests/tiny", "model": "sample-recognition"}

``settings`` may be a property too, or be set on the class by a fixture.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar
from unittest import SkipTest

import numpy as np
import yaml

from evalkit.core.errors import EvalkitError
from evalkit.core.option import options_of
from evalkit.core.progress import Progress
from evalkit.core.results import Metric, Result, load_result
from evalkit.core.settings import RunSettings
from evalkit.stats.comparisons import Comparisons
from evalkit.stats.evidence import Evidence
from evalkit.stats.matches import Matches
from evalkit.tasks.base import Task
from evalkit.tasks.panels import Chart, Note, Runs, Scored, Thresholds
from evalkit.tasks.run import Outcome, run
from evalkit.tasks.tables import Table


class TaskContract:
    """Tests of one task on small data.

    Attributes
    ----------
    task : type of Task
    settings : mapping of str to object
        Of a quick run on one data set.
    limited : mapping of str to object
        Settings that make it a run on a part of the data.
    failing : mapping of str to object
        Settings with which some samples have no usable output; those failures are allowed. Without
        any, the test of failures is skipped.
    """

    task: type[Task[Any]]
    settings: Mapping[str, Any]
    limited: Mapping[str, Any] = {"limit": 20}
    failing: Mapping[str, Any] = {}

    _outcomes: ClassVar[dict[str, Outcome]] = {}

    def test_it_declares_itself(self) -> None:
        """A task has a name, a title, a kind of model, and settings with help texts."""
        assert self.task.name
        assert self.task.title
        assert self.task.head in {"embedding", "detection"}
        assert issubclass(self.task.Settings, RunSettings)
        options = options_of(self.task.Settings)
        assert set(options) == set(self.task.Settings.model_fields)
        assert all(option.help for option in options.values())

    def test_settings_are_the_same_from_yaml(self) -> None:
        """What a YAML file says is what the settings say."""
        settings = self._settings()
        text = yaml.safe_dump(settings.model_dump(mode="json", exclude_unset=True))
        assert self.task.Settings(**yaml.safe_load(text)) == settings

    def test_a_run_gives_a_complete_result(self) -> None:
        """One data set, one result; it is read back as it was."""
        result, _ = self._saved()
        assert result.task == self.task.name
        assert result.status == "complete"
        assert result.dataset.name
        assert result.dataset.sha256

    def test_metrics_declare_what_they_are(self) -> None:
        """Names are unique, values finite, and one figure is the first to look at."""
        metrics = self._outcome().result.metrics
        assert len({metric.name for metric in metrics}) == len(metrics) > 0
        assert sum(metric.headline for metric in metrics) == 1
        for metric in metrics:
            assert metric.figure, metric.name
            assert metric.rule, metric.name
            assert metric.flags if metric.value is None else math.isfinite(metric.value)
            assert not metric.share or set(metric.share) <= metric.counts.keys(), metric.name
            if metric.kind != "norm" and metric.value is not None:
                assert 0 <= metric.value <= 1, metric.name

    def test_evidence_gives_the_figures_again(self) -> None:
        """Where every unit is taken once, a metric's replicate is its value."""
        tested = set()
        for metric, evidence in self._evident():
            draws = evidence.once()
            again = None if draws is None else evidence.replicates(metric, draws)
            if again is not None:
                assert len(again) == 1
                value = math.nan if metric.value is None else metric.value
                np.testing.assert_allclose(again[0], value, 1e-9, 1e-12, err_msg=metric.name)
                tested.add(metric.name)
            if evidence.decisions(metric, metric) is not None:
                tested.add(metric.name)
        primaries = set(self.task().primaries(self._settings()))
        assert primaries, "a sign-off can test nothing"
        assert primaries <= tested, "a sign-off may test what no evidence gives"

    def test_the_same_seed_draws_the_same(self) -> None:
        """Draws are repeatable, and say how they were made."""
        for metric, evidence in self._evident():
            one, two = evidence.draw(5, seed=3), evidence.draw(5, seed=3)
            if one is None or two is None:
                continue
            assert one.method == two.method
            first, second = evidence.replicates(metric, one), evidence.replicates(metric, two)
            assert (first is None) == (second is None)
            if first is not None:
                assert len(first) == 5
                np.testing.assert_array_equal(first, second)

    def test_decisions_give_the_counts(self) -> None:
        """Decisions at a metric's own thresholds are those that it counted."""
        for metric, evidence in self._evident():
            made = evidence.decisions(metric, metric)
            if made is None:
                continue
            counted = {
                "true_accepts": made.accepted & made.genuine,
                "false_accepts": made.accepted & ~made.genuine,
                "correct": made.right,
            }
            for name, chosen in counted.items():
                if name in metric.counts and metric.rule != "interpolated":
                    assert np.count_nonzero(chosen) == metric.counts[name], metric.name
            assert made.label(0)

    def test_other_trials_are_not_paired(self) -> None:
        """Runs on the same data are paired; one on a part of them is not, and is told why."""
        for view, evidence in self._evidence().items():
            assert evidence.unpaired(self._evidence()[view]) == ""
            assert evidence.unpaired(self._evidence(**self.limited)[view])

    def test_damaged_arrays_are_refused(self) -> None:
        """Without an array that it needs, what lies beside a result is no evidence."""
        result, _ = self._saved()
        assert _refusal(lambda: self.task().read({}, result)).endswith(".")

    def test_a_part_of_the_data_is_partial(self) -> None:
        """A quick look has fewer samples, says so, and is laid out like any other."""
        whole, part = self._outcome(), self._outcome(**self.limited)
        assert part.result.status == "partial"
        assert part.samples.fingerprint != whole.samples.fingerprint
        assert part.result.dataset.sha256 or part.result.dataset.name != whole.result.dataset.name
        assert self.task().summary(part.result).partial

    def test_failures_are_named(self) -> None:
        """Samples without a usable output are named with the reason; too many stop the run."""
        if not self.failing:
            raise SkipTest("set 'failing' to settings with which some samples fail")
        failures = self._outcome(**self.failing).result.failures_to_enrol
        assert failures
        assert all(failure.name and failure.reason for failure in failures)
        few = {**self.failing, "max_failures": len(failures) - 1}
        assert "--max-failures" in _refusal(lambda: self._run(few))

    def test_tables_are_text(self) -> None:
        """Summary and tables hold texts, a cell for each column."""
        task, result = self.task(), self._outcome().result
        summary = task.summary(result)
        assert result.dataset.name in summary.dataset
        tables: list[Table] = [*summary.tables, *task.several([result, result])]
        assert tables
        for table in tables:
            for row in [table.header, *table.rows]:
                assert len(row) == len(table.header)
                assert all(isinstance(cell, str) for cell in row)
        assert all(isinstance(doubt, str) for doubt in task.doubts(result))

    def test_panels_are_plain_data(self) -> None:
        """A page of two runs shows the evidence, and needs none to be written."""
        result, evidence = self._outcome().result, self._evidence()
        primary = next(metric.name for metric in result.metrics if metric.headline)
        runs = tuple(Scored(at, f"run {at}", at == 0, result, evidence) for at in (0, 1))
        panels = self.task().panels(Runs(runs, primary))
        assert all(isinstance(panel, Chart | Thresholds | Note) for panel in panels)
        if any(isinstance(part, Comparisons | Matches) for part in evidence.values()):
            assert any(isinstance(panel, Chart) for panel in panels), "no curve of the evidence"
        bare = tuple(dataclasses.replace(scored, evidence={}) for scored in runs)
        assert isinstance(self.task().panels(Runs(bare, primary)), tuple)

    def test_images_are_counted(self) -> None:
        """A plan's estimate knows how many images there are."""
        if "data" not in self.settings:
            raise SkipTest("set 'data' in 'settings' to the data set of the quick run")
        assert self.task().images(Path(self.settings["data"])) > 0

    def _settings(self, **changes: Any) -> RunSettings:
        return self.task.Settings(**{**self.settings, **changes})

    def _run(self, changes: Mapping[str, Any]) -> Outcome:
        (outcome,) = run(self.task(), self._settings(**changes), Progress(quiet=True))
        return outcome

    def _outcome(self, **changes: Any) -> Outcome:
        """Run, once for all tests that ask for the same run."""
        settings = self._settings(**changes).model_dump_json()
        key = f"{self.task.__module__}:{self.task.__qualname__} {settings}"
        if key not in self._outcomes:
            self._outcomes[key] = self._run(changes)
        return self._outcomes[key]

    def _saved(self, **changes: Any) -> tuple[Result, dict[str, Any]]:
        """Save an outcome and read it again."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "result.json"
            saved = self._outcome(**changes).save(path)
            assert saved.scores_file is not None
            with np.load(path.with_name(saved.scores_file), allow_pickle=False) as data:
                arrays = {name: data[name] for name in data}
            assert load_result(path).model_dump_json() == saved.model_dump_json()
        return saved, arrays

    def _evidence(self, **changes: Any) -> Mapping[str, Evidence]:
        result, arrays = self._saved(**changes)
        evidence = self.task().read(arrays, result)
        assert evidence, "nothing lies beside the result, so that no verdict is paired"
        return evidence

    def _evident(self) -> list[tuple[Metric, Evidence]]:
        """Return each metric with the evidence of its view."""
        evidence = self._evidence()
        main = next(iter(evidence.values()))
        metrics = self._outcome().result.metrics
        return [(metric, evidence.get(metric.view, main)) for metric in metrics]


def _refusal(work: Callable[[], object]) -> str:
    """Return the message of what is refused."""
    try:
        work()
    except EvalkitError as error:
        return str(error)
    raise AssertionError("nothing was refused")
