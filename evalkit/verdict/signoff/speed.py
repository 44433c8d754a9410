"""The speed measurement beside a sign-off: all cells of a model by turns, in one process.

``python -m evalkit.verdict.signoff.speed SETTINGS OUTPUT`` is that process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from evalkit.bench import Setup, bench
from evalkit.core.errors import EvalkitError
from evalkit.core.files import atomic_write, sha256_json
from evalkit.core.progress import Progress
from evalkit.core.settings import RunSettings, load_model_config
from evalkit.verdict.plan import Bench
from evalkit.verdict.signoff.cells import Job, run_module


def measure_speed(
    settings: Bench, jobs: Sequence[Job], folder: Path, progress: Progress
) -> tuple[dict[str, Any], list[str]]:
    """Time every model of some cells that have run.

    Parameters
    ----------
    settings : Bench
    jobs : sequence of Job
    folder : Path
        Of the sign-off. A measurement there is kept where files and settings are the same.
    progress : Progress

    Returns
    -------
    dict of str to dict
        By the model's name, as `evalkit.bench.BenchResult` gives it.
    list of str
        What could not be measured, and why.
    """
    speeds: dict[str, Any] = {}
    problems = []
    here = [job for job in jobs if not job.elsewhere]
    for name in dict.fromkeys(job.model.name for job in here):
        rows = {job.mode: job for job in here if job.model.name == name}
        place = folder / "bench" / next(iter(rows.values())).protocol.name
        try:
            speeds[name] = _measure(settings, list(rows.values()), place, progress)
        except (EvalkitError, OSError, ValueError) as error:
            problems.append(f"the speed of {name} was not measured: {error}")
    return speeds, problems


def _measure(bench_plan: Bench, jobs: Sequence[Job], place: Path, progress: Progress) -> Any:
    model = jobs[0].model.model_dump(
        mode="json", exclude_unset=True, exclude={"files": True, "runtime": {"python"}}
    )
    files = {str(job.mode): str(job.model.file_for(*job.mode).absolute()) for job in jobs}
    settings = {"model": {**model, "files": files}, "setups": [], **bench_plan.model_dump()}
    settings["setups"] = [
        {
            "backend": job.mode.backend,
            "precision": job.mode.precision,
            "batch_size": size,
            "threads": job.settings.get("threads"),
            "device": job.settings.get("device", "cpu"),
            "python": job.worker or None,
        }
        for job in jobs
        for size in bench_plan.batch_sizes
    ]
    stamps = [Path(file).stat().st_mtime_ns for file in files.values()]
    key = sha256_json([settings, stamps])
    output = place.with_suffix(".json")
    key_file = place.with_suffix(".key")
    if output.is_file() and key_file.is_file() and key_file.read_text(encoding="ascii") == key:
        return json.loads(output.read_bytes())
    progress.say(f"timing {jobs[0].model.name}: {len(settings['setups'])} configurations by turns")
    file = place.with_suffix(".yaml")
    _write(file, yaml.safe_dump(json.loads(json.dumps(settings))))
    words = ["evalkit.verdict.signoff.speed", str(file), str(output)]
    code, lines = run_module(words, place.with_suffix(".txt"), progress)
    if code != 0:
        raise ValueError(lines[-1] if lines else f"exit code {code}")
    _write(key_file, key)
    return json.loads(output.read_bytes())


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def main(settings_file: str, output: str) -> None:
    """Time what a file of settings asks for."""
    path = Path(settings_file)
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    model_file = path.with_suffix(".model.yaml")
    _write(model_file, yaml.safe_dump(settings["model"]))
    model = load_model_config(str(model_file), RunSettings())
    setups = [
        Setup(**{**setup, "python": Path(setup["python"]) if setup["python"] else None})
        for setup in settings["setups"]
    ]
    result = bench(
        model,
        setups,
        repeats=settings["repeats"],
        seconds=settings["seconds"],
        progress=Progress(),
        command="evalkit signoff",
    )
    result.save(Path(output))


if __name__ == "__main__":
    main(*sys.argv[1:])
