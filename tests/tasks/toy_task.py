"""A task of another package: how many pairs a fixed threshold decides rightly."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np

from evalkit.core.option import Option
from evalkit.core.progress import Progress
from evalkit.core.results import DatasetInfo, Metric, Result
from evalkit.core.settings import PROTOCOL, RunSettings
from evalkit.datasets.lfw import LfwImages, load_bin
from evalkit.run.inference import Inferred, embeddings
from evalkit.stats.comparisons import PairComparisons
from evalkit.stats.evidence import Array, Evidence
from evalkit.tasks.base import Evaluation, Ready, Samples, Task, Work
from evalkit.tasks.tables import Summary, Table, interval, percent


class ToySettings(RunSettings):
    threshold: Annotated[float, Option("least similarity", PROTOCOL, "figure", "X")] = 0.3


class Toy(Task[ToySettings]):
    name, title, head, Settings = "toy", "Toy", "embedding", ToySettings
    reading = "figures in %, differences in points"

    def open(self, settings: ToySettings, progress: Progress) -> Iterator[Samples]:
        pairs = load_bin(self.root(settings, progress))
        data = {"name": pairs.name, "sha256": pairs.sha256, "content_sha256": None}
        info = DatasetInfo(**data, counts={"pairs": len(pairs)}, path=str(pairs.path))
        source = lambda side: LfwImages(pairs, side)  # noqa: E731
        yield Samples(info, pairs.sha256, pairs.path.parent, source, data=np.array(pairs.issame))

    def evaluate(
        self, outputs: Inferred | Ready, samples: Samples, settings: ToySettings, work: Work
    ) -> Evaluation:
        rows, _ = embeddings(outputs, flip=False)
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        similarity, same = (units[::2] * units[1::2]).sum(axis=1), samples.data
        right, pairs = int(np.sum((similarity >= settings.threshold) == same)), len(same)
        values = {"value": right / pairs, "rule": "fixed", "at": {"similarity": settings.threshold}}
        counts = {"counts": {"correct": right, "pairs": pairs}, "share": ("correct", "pairs")}
        metric = Metric(name="right", figure="right", headline=True, **values, **counts)
        arrays = {"similarity": similarity, "genuine": same}
        return Evaluation((metric,), arrays, {"threshold": settings.threshold}, outputs.failures)

    def read(self, arrays: Mapping[str, Array], result: Result) -> Mapping[str, Evidence]:
        return {"": PairComparisons(arrays["similarity"], arrays["genuine"])}

    def summary(self, result: Result) -> Summary:
        rows = [(m.name, percent(m.value), interval(m)) for m in result.metrics]
        return Summary(result.dataset.name, "", "", (Table(("figure", "%", "95 %"), rows),))

    def primaries(self, settings: ToySettings) -> tuple[str, ...]:
        return ("right",)

    def images(self, path: Path) -> int:
        return 2 * len(load_bin(path))
