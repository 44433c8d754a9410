"""The cells of a sign-off: each an ordinary evaluation in a process of its own.

A runtime that crashes takes its own cell down and nothing else, memory and timings are those of one
run, and what a cell was made by can be run again by hand: its folder holds the settings.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import evalkit
from evalkit.backends.base import Probe
from evalkit.core.errors import EvalkitError, InputError
from evalkit.core.files import atomic_write, sha256_file, sha256_json
from evalkit.core.progress import Progress
from evalkit.core.results import Result, load_result
from evalkit.core.settings import ModelConfig, RunSettings, load_model_config
from evalkit.datasets.sample import sample_path
from evalkit.run import detector, inference, models
from evalkit.verdict.plan import DeviceOutputs, Mode, Override, Plan, ProtocolPlan
from evalkit.verdict.signoff.probing import Prober

_PATIENCE_S = 60.0
_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


class CellError(EvalkitError):
    """A cell cannot run; the message says why."""


@dataclass(frozen=True, slots=True)
class Data:
    """What a protocol runs on.

    Attributes
    ----------
    path : Path
    state : str
        Hash of the names, sizes and times of all files: it changes when they do. The results
        themselves hold hashes of the content.
    images : int
        Files of images, or images in a ``.bin``.
    """

    path: Path
    state: str
    images: int


@dataclass(frozen=True, slots=True)
class Job:
    """A cell to run.

    Attributes
    ----------
    folder : Path
        Of this cell: settings, result, log.
    settings : dict
        Of the run, as its ``--config`` says them.
    model : ModelConfig
    """

    protocol: ProtocolPlan
    mode: Mode
    override: Override
    data: Data
    folder: Path
    settings: dict[str, Any]
    model: ModelConfig

    @property
    def name(self) -> str:
        """``protocol/backend:precision``."""
        return f"{self.protocol.name}/{self.mode}"

    @property
    def result(self) -> Path:
        """The result file."""
        return self.folder / "result.json"

    @property
    def elsewhere(self) -> bool:
        """Whether a device has run it, and its outputs are read."""
        return "outputs" in self.settings

    @property
    def worker(self) -> str:
        """The interpreter of the backend's worker; empty where it needs none."""
        return "" if self.elsewhere else str(self.settings.get("python", ""))


def jobs_of(plan: Plan, folder: Path) -> list[Job]:
    """Return all cells, by protocol, the reference first.

    Raises
    ------
    evalkit.core.errors.InputError
        The plan names data or a model that is not there.
    """
    jobs = []
    for protocol in plan.protocols:
        data = find_data(plan, protocol)
        jobs += [_job(plan, protocol, mode, data, folder) for mode in plan.modes_of(protocol)]
    return jobs


def chosen_of(jobs: Sequence[Job], only: Sequence[str], plan: Plan) -> set[str]:
    """Return the names of the cells that ``--only`` asks for, and their references; all if empty.

    Raises
    ------
    evalkit.core.errors.InputError
        `only` names no cell.
    """
    if not only:
        return {job.name for job in jobs}
    found: set[str] = set()
    for asked in only:
        named = [job for job in jobs if asked in {job.name, str(job.mode), job.protocol.name}]
        if not named:
            known = ", ".join(job.name for job in jobs)
            raise InputError(f"--only {asked}: there is no such cell. The plan has {known}.")
        found |= {job.name for job in named}
        found |= {f"{job.protocol.name}/{plan.reference_mode}" for job in named}
    return found


def find_data(plan: Plan, protocol: ProtocolPlan) -> Data:
    """Find a protocol's data; the embedded sample where none is named.

    Raises
    ------
    evalkit.core.errors.InputError
        They are not there.
    """
    if protocol.data is None:
        path = sample_path(protocol.kind)
    else:
        path = (plan.folder / protocol.data.expanduser()).absolute()
    if not path.exists():
        raise InputError(f"protocol {protocol.name}: there are no data at {path}.")
    if protocol.kind == "lfw" and path.is_dir():
        raise InputError(f"protocol {protocol.name}: {path} is a folder; name one .bin in it.")
    digests = []
    images = 0
    for file in _files(path):
        status = file.stat()
        digests.append((str(file.relative_to(path)), status.st_size, status.st_mtime_ns))
        images += file.suffix.lower() in _IMAGES
    if protocol.kind == "lfw":
        from evalkit.datasets.lfw import load_bin  # noqa: PLC0415 - heavy

        images = 2 * len(load_bin(path))
    return Data(path, sha256_json(digests), images)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for folder, below, names in os.walk(path, followlinks=True):
        below.sort()
        yield from (Path(folder) / name for name in sorted(names))


def _job(plan: Plan, protocol: ProtocolPlan, mode: Mode, data: Data, root: Path) -> Job:
    override = plan.matrix.override(mode)
    folder = root / "cells" / protocol.name / f"{mode.backend}-{mode.precision}"
    settings: dict[str, Any] = {**protocol.settings, "data": str(data.path)}
    if "ground_truth" in settings:
        settings["ground_truth"] = str((plan.folder / settings["ground_truth"]).absolute())
    settings |= {"backend": mode.backend, "precision": mode.precision}
    for name in ("device", "threads", "batch_size"):
        if getattr(override, name) is not None:
            settings[name] = getattr(override, name)
    if protocol.name in override.devices:
        settings |= _device(plan, override.devices[protocol.name])
    named = _model_name(plan, protocol)
    model = load_model_config(named, RunSettings())
    settings["model"] = named
    worker = _worker(plan, override, model)
    if worker is not None:
        settings["python"] = worker
    if override.file is not None:
        file = str((plan.folder / Path(override.file).expanduser()).absolute())
        model = model.model_copy(update={"files": {str(mode): file}})
        settings["model"] = str((folder / "model.yaml").absolute())
    return Job(protocol, mode, override, data, folder, settings, model)


def _device(plan: Plan, given: DeviceOutputs) -> dict[str, Any]:
    """Return where a device's outputs lie, as settings of a run."""
    settings: dict[str, Any] = {} if given.verify is None else {"verify": given.verify}
    for name in ("outputs", "manifest", "runtime_info", "throughput_log"):
        path = getattr(given, name)
        if path is not None:
            settings[name] = str((plan.folder / path.expanduser()).absolute())
    return settings


def _worker(plan: Plan, override: Override, model: ModelConfig) -> str | None:
    """Return the interpreter that a cell names, else the model's; a bare name is a command."""
    named = override.python or model.runtime.python
    if named is None:
        return None
    path = Path(named).expanduser()
    folder = plan.folder if override.python else model.folder
    return str(path) if path.parent == Path() else str((folder / path).absolute())


def _model_name(plan: Plan, protocol: ProtocolPlan) -> str:
    named = plan.model_of(protocol)
    if named is None:
        widerface = protocol.kind == "widerface"
        return detector.SAMPLE_MODEL if widerface else inference.SAMPLE_MODEL
    path = (plan.folder / Path(named).expanduser()).absolute()
    return str(path) if path.exists() or path.suffix in {".yaml", ".yml"} else named


def key_of(job: Job, prober: Prober) -> str:
    """Hash everything that a cell's result depends on.

    Raises
    ------
    CellError
        The backend cannot run here, or has no file of this model.
    """
    probe = prober.probe(job.mode.backend, job.worker)
    if not probe.available:
        raise CellError(f"backend {job.mode.backend}: {probe.reason} {probe.remedy}".rstrip())
    try:
        model = models.model_sha256(_model_file(job, probe))
    except InputError as error:
        raise CellError(str(error)) from error
    return sha256_json(
        {
            "settings": job.settings,
            "kind": job.protocol.kind,
            "data": job.data.state,
            "model": [job.model.model_dump(mode="json", exclude={"files"}), model],
            "device": [
                sha256_file(Path(job.settings[name]))
                for name in ("runtime_info", "throughput_log")
                if name in job.settings and Path(job.settings[name]).is_file()
            ],
            "runtime": probe.version,
            "evalkit": evalkit.__version__,
        }
    )


def _model_file(job: Job, probe: Probe) -> Path:
    """Return the model's file, or what a device wrote in its place."""
    if not probe.reads_outputs:
        return job.model.file_for(*job.mode)
    path = Path(job.settings.get("outputs", ""))
    if "outputs" not in job.settings or not path.exists():
        raise InputError(
            f"no outputs for {job.name}: name them in the plan, under matrix.cells.{job.mode}."
            f"devices.{job.protocol.name}."
            if "outputs" not in job.settings
            else f"there are no outputs {path}."
        )
    return path


def finished(job: Job, key: str) -> Result | None:
    """Return a cell's result if it stands from an earlier run and nothing has changed since."""
    try:
        if (job.folder / "key").read_text(encoding="ascii").strip() != key:
            return None
        result = load_result(job.result)
    except (OSError, ValueError, InputError):
        return None
    beside = result.scores_file is not None and (job.folder / result.scores_file).is_file()
    stored = result.store is None or Path(result.store).is_dir()
    return result if beside and stored and result.status == "complete" else None


def run(job: Job, key: str, progress: Progress) -> Result:
    """Run a cell.

    Raises
    ------
    CellError
        It did not end well.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "key").unlink(missing_ok=True)
    job.result.unlink(missing_ok=True)
    output = {"output": str(job.result.absolute())}
    code, lines = evaluate(job, {**job.settings, **output}, progress)
    _write(job.folder / "log.txt", "\n".join(lines) + "\n")
    if code != 0:
        raise CellError(_reason(job, code, lines))
    result = load_result(job.result)
    _write(job.folder / "key", f"{key}\n")
    return result


def evaluate(job: Job, settings: dict[str, Any], progress: Progress) -> tuple[int, list[str]]:
    """Run a job's command with some settings; return its exit code and what it said."""
    if job.override.file is not None:
        held = job.model.model_dump(mode="json", exclude_unset=True) | {"files": job.model.files}
        _write(Path(settings["model"]), yaml.safe_dump(held))
    file = job.folder / "settings.yaml"
    _write(file, yaml.safe_dump(settings))
    words = ["evalkit", job.protocol.kind, "--config", str(file)]
    return run_module(words, job.folder / "table.txt", progress)


def run_module(words: list[str], table: Path, progress: Progress) -> tuple[int, list[str]]:
    """Run ``python -m WORDS`` with its output in a file; return exit code and what it said."""
    lines = []
    with (
        table.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            env={k: v for k, v in os.environ.items() if k != "EVALKIT_DATA"},
            start_new_session=True,  # an interruption reaches it once, from here
        ) as child,
    ):
        try:
            for line in child.stderr or ():
                lines.append(line.rstrip())
                progress.say(f"  {line.rstrip()}")
            return child.wait(), lines
        except BaseException:
            _stop(child)
            raise


def _stop(child: subprocess.Popen[str]) -> None:
    """Let a run keep what it has, then end it."""
    with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        child.terminate()  # an interruption that no shell has it ignore
        child.communicate(timeout=_PATIENCE_S)
        return
    child.kill()


def _reason(job: Job, code: int, lines: list[str]) -> str:
    """Return why a run ended badly, out of its last words."""
    log = job.folder / "log.txt"
    if code < 0:
        return f"the run crashed ({signal.Signals(-code).name}); see {log}"
    said = f"evalkit {job.protocol.kind}: "
    places = [row for row, line in enumerate(lines) if line.startswith(said)]
    if not places:
        return f"the run ended with code {code}; see {log}"
    message = "\n".join(lines[places[-1] :]).removeprefix(said)
    if code == 70:
        fault = lines[places[-1] - 1] if places[-1] else message
        return f"{fault}: a fault of evalkit; see {log}"
    return message


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
