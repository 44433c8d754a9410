"""What a backend can do, asked in a process of its own: runtimes do not always bear each other."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from evalkit.backends.base import Probe

_PATIENCE_S = 300.0
_ASK = """
import dataclasses, json, sys
from evalkit.backends import BACKENDS
from evalkit.errors import EvalkitError
try:
    probe = dataclasses.asdict(BACKENDS.get(sys.argv[1]).probe())
except EvalkitError as error:
    probe = {"available": False, "reason": str(error)}
print("\\n" + json.dumps(probe))
"""


class Prober:
    """Probes backends, each once."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Probe] = {}

    def probe(self, backend: str, python: str) -> Probe:
        """Probe a backend under an interpreter."""
        asked = backend, python
        if asked not in self._held:
            self._held[asked] = _probe(backend, python)
        return self._held[asked]


def _probe(backend: str, python: str) -> Probe:
    try:
        done = subprocess.run(
            [python, "-c", _ASK, backend],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
            cwd=Path.cwd(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Probe(False, reason=f"{python} cannot be asked: {error}.")
    try:
        return Probe(**json.loads(done.stdout.strip().splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return Probe(False, reason=f"{python} could not probe it: {said[0]}.")
