"""The cells of a sign-off: each an ordinary evaluation in a process of its own.

A runtime that crashes ends its own cell only. Memory and timings are those of one run. A cell's
folder holds its settings, so that the run can be repeated by hand.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evalkit.backends.base import Probe
from evalkit.core.errors import EXIT_INTERNAL, EXIT_OK, EvalkitError, InputError
from evalkit.core.files import atomic_write, sha256_file, sha256_json
from evalkit.core.progress import Progress
from evalkit.core.results import Result, load_result
from evalkit.core.settings import ModelConfig, RunSettings, load_model_config
from evalkit.core.validation import validate
from evalkit.run import models
from evalkit.run.inference import sample_model
from evalkit.tasks import settings_of
from evalkit.verdict.plan import DeviceOutputs, Mode, Override, Plan, ProtocolPlan
from evalkit.verdict.signoff.cell import Reason
from evalkit.verdict.signoff.data import Data, find_data, state_of
from evalkit.verdict.signoff.probing import Prober

_PATIENCE_S = 60.0


class CellError(EvalkitError):
    """A cell cannot run; the message says why.

    Attributes
    ----------
    unexplained : bool
        Whether only the log of the run says more.
    """

    def __init__(self, message: str, *, unexplained: bool = False) -> None:
        super().__init__(message)
        self.unexplained = unexplained


@dataclass(frozen=True, slots=True)
class Job:
    """A cell to run.

    Attributes
    ----------
    folder : Path
        Of this cell: settings, result, log.
    settings : dict
        Of the run, as in its ``--config``.
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
    """Return the names of the cells of ``--only``, and their references; all if it is empty.

    Raises
    ------
    evalkit.core.errors.InputError
        `only` names no cell.
    """
    if not only:
        return {job.name for job in jobs}
    chosen: set[str] = set()
    for name in only:
        cells = [job for job in jobs if name in {job.name, str(job.mode), job.protocol.name}]
        if not cells:
            known = ", ".join(job.name for job in jobs)
            raise InputError(f"--only {name}: there is no such cell. The plan has {known}.")
        chosen |= {job.name for job in cells}
        chosen |= {f"{job.protocol.name}/{plan.reference_mode}" for job in cells}
    return chosen


def _job(plan: Plan, protocol: ProtocolPlan, mode: Mode, data: Data, root: Path) -> Job:
    override = plan.matrix.override(mode)
    folder = root / "cells" / protocol.name / f"{mode.backend}-{mode.precision}"
    settings: dict[str, Any] = {**protocol.settings, "data": str(data.path)}
    run_settings = protocol.run_settings
    for name in protocol.settings:
        path = getattr(run_settings, name)
        if isinstance(path, Path):
            settings[name] = str((plan.folder / path).absolute())
    settings |= {"backend": mode.backend, "precision": mode.precision}
    for name in ("device", "threads", "batch_size"):
        if getattr(override, name) is not None:
            settings[name] = getattr(override, name)
    if protocol.name in override.devices:
        settings |= _device(plan, override.devices[protocol.name])
    settings["model"] = _model_name(plan, protocol)
    model = load_model_config(settings["model"], RunSettings())
    worker = _worker(plan, override, model)
    if worker is not None:
        settings["python"] = worker
    if override.file is not None:
        file = str((plan.folder / Path(override.file).expanduser()).absolute())
        model = model.model_copy(update={"files": {str(mode): file}})
        settings["model"] = str((folder / "model.yaml").absolute())
    return Job(protocol, mode, override, data, folder, settings, model)


def _device(plan: Plan, device: DeviceOutputs) -> dict[str, Any]:
    """Return where a device's outputs lie, as settings of a run."""
    settings: dict[str, Any] = {} if device.verify is None else {"verify": device.verify}
    for name in ("outputs", "manifest", "runtime_info", "throughput_log"):
        path = getattr(device, name)
        if path is not None:
            settings[name] = str((plan.folder / path.expanduser()).absolute())
    return settings


def _worker(plan: Plan, override: Override, model: ModelConfig) -> str | None:
    """Return the interpreter that a cell names, else the model's; a bare name is a command."""
    interpreter = override.python or model.runtime.python
    if interpreter is None:
        return None
    path = Path(interpreter).expanduser()
    folder = plan.folder if override.python else model.folder
    return str(path) if path.parent == Path() else str((folder / path).absolute())


def _model_name(plan: Plan, protocol: ProtocolPlan) -> str:
    model = plan.model_of(protocol)
    if model is None:
        return sample_model(protocol.task.head)
    path = (plan.folder / Path(model).expanduser()).absolute()
    return str(path) if path.exists() or path.suffix in {".yaml", ".yml"} else model


def facts_of(job: Job, prober: Prober) -> dict[str, Any]:
    """Return everything that a cell's result depends on.

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
    settings = validate(settings_of(job.protocol.kind), job.settings, job.name)
    beside = job.protocol.task.beside(settings)
    return {
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
        "beside": [(str(path), state_of(path)) for path in beside],
    }


def _model_file(job: Job, probe: Probe) -> Path:
    """Return the model's file, or the outputs that a device wrote."""
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


def finished(job: Job, facts: dict[str, Any]) -> Result | None:
    """Return a cell's result if an earlier run made it and nothing has changed since."""
    try:
        key = (job.folder / "key").read_text(encoding="ascii").strip()
        result = load_result(job.result)
    except (OSError, ValueError, InputError):
        return None
    # Keys of version 0.1 hold evalkit's version, and nothing of what lies beside the data.
    old = {name: fact for name, fact in facts.items() if name != "beside"}
    if key not in map(sha256_json, (facts, {**old, "evalkit": result.evalkit_version})):
        return None
    beside = result.scores_file is not None and (job.folder / result.scores_file).is_file()
    stored = result.store is None or Path(result.store).is_dir()
    return result if beside and stored and result.status == "complete" else None


def run(job: Job, facts: dict[str, Any], progress: Progress) -> Result:
    """Run a cell.

    Raises
    ------
    CellError
        It did not end well.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "key").unlink(missing_ok=True)
    job.result.unlink(missing_ok=True)
    log = job.folder / "log.txt"
    output = {"output": str(job.result.absolute())}
    try:
        evaluate(job, {**job.settings, **output}, progress)
    except CellError as error:
        if error.unexplained:
            raise CellError(f"{error}; see {log}") from error
        raise
    result = load_result(job.result)
    _write(job.folder / "key", f"{sha256_json(facts)}\n")
    return result


def evaluate(job: Job, settings: dict[str, Any], progress: Progress) -> None:
    """Run a job's evaluation with some settings, in a process of its own.

    Raises
    ------
    CellError
        It did not end well.
    """
    if job.override.file is not None:
        model = job.model.model_dump(mode="json", exclude_unset=True) | {"files": job.model.files}
        _write(Path(settings["model"]), yaml.safe_dump(model))
    file, reason = job.folder / "settings.yaml", job.folder / "reason.json"
    _write(file, yaml.safe_dump(settings))
    reason.unlink(missing_ok=True)
    words = ["evalkit.verdict.signoff.cell", job.protocol.kind, str(file), str(reason)]
    code, lines = run_module(words, job.folder / "stdout.txt", progress)
    _write(job.folder / "log.txt", "\n".join(lines) + "\n")
    if code != EXIT_OK:
        raise _failure(code, reason)


def run_module(words: list[str], stdout: Path, progress: Progress) -> tuple[int, list[str]]:
    """Run ``python -m WORDS`` with its output in a file; return exit code and its messages."""
    lines = []
    with (
        stdout.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            env={k: v for k, v in os.environ.items() if k != "EVALKIT_DATA"},
            start_new_session=True,  # Ctrl-C reaches it once, from here
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
    """End a run, after it has stored the outputs that it has."""
    with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        child.terminate()  # shells let some children ignore Ctrl-C, but not this
        child.communicate(timeout=_PATIENCE_S)
        return
    child.kill()


def _failure(code: int, file: Path) -> CellError:
    """Return why a run ended badly, out of the file that it wrote last."""
    if code < 0:
        return CellError(f"the run crashed ({signal.Signals(-code).name})", unexplained=True)
    try:
        reason = Reason.model_validate_json(file.read_bytes())
    except (OSError, ValueError):
        return CellError(f"the run ended with code {code}", unexplained=True)
    if reason.code == EXIT_INTERNAL:
        return CellError(f"{reason.message}: a fault of evalkit", unexplained=True)
    return CellError(reason.message)


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
