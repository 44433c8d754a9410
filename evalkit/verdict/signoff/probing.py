"""Probes of backends, each in a process of its own: some runtimes crash beside others."""

from __future__ import annotations

import json
import subprocess
import sys

from evalkit.backends.base import Probe

_PATIENCE_S = 300.0
_ASK = """
import dataclasses, json, sys
from evalkit.core.settings import ModelConfig, RunSettings
from evalkit.core.errors import EvalkitError
from evalkit.run.models import choose_backend
run = RunSettings(backend=sys.argv[1], python=sys.argv[2] or None)
try:
    backend = choose_backend(run, ModelConfig(name="any", files={"any": "any"}))
    probe = dataclasses.asdict(backend.probe())
except EvalkitError as error:
    probe = {"available": False, "reason": str(error)}
print("\\n" + json.dumps(probe))
"""


class Prober:
    """Probes backends, each once."""

    def __init__(self) -> None:
        self._probes: dict[tuple[str, str], Probe] = {}

    def probe(self, backend: str, worker: str = "") -> Probe:
        """Probe a backend, in a worker's interpreter where one is named."""
        key = backend, worker
        if key not in self._probes:
            self._probes[key] = _probe(backend, worker)
        return self._probes[key]


def _probe(backend: str, worker: str) -> Probe:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK, backend, worker],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Probe(False, reason=f"it could not be probed within {_PATIENCE_S:g} s.")
    try:
        return Probe(**json.loads(done.stdout.strip().splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"exit code {done.returncode}"
        return Probe(False, reason=f"it could not be probed: {reason}.")
