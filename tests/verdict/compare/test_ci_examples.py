"""The CI examples: their own commands, run here without their servers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from evalkit.cli import main

EXAMPLES = Path(__file__).parents[3] / "configs" / "ci"


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((EXAMPLES / name).read_text(encoding="utf-8"))


def github() -> tuple[list[str], dict[str, str]]:
    # YAML 1.1 reads the key `on` as true.
    workflow = read("github-actions.yml")
    assert workflow[True] == ["pull_request"]
    job = workflow["jobs"]["gate"]
    return [step["run"] for step in job["steps"] if "run" in step], job["env"]


def gitlab() -> tuple[list[str], dict[str, str]]:
    job = read("gitlab-ci.yml")["accuracy"]
    assert job["artifacts"]["reports"]["junit"] == "gate.xml"
    return [*job["before_script"], *job["script"]], job["variables"]


@pytest.mark.parametrize("example", [github, gitlab])
@pytest.mark.parametrize("worse", [False, True])
def test_the_commands_of_an_example(
    example: Callable[[], tuple[list[str], dict[str, str]]],
    worse: bool,
    release: Path,
    network: Callable[[float], Path],
    tmp_path: Path,
) -> None:
    install, evaluate, gate = example()[0]
    assert set(example()[1]) == {"EVALKIT_DATA", "MODEL"}
    # Never by the bare name, which is another package's on PyPI.
    assert install == 'python -m pip install "/opt/evalkit[cpu]"'
    (tmp_path / "accuracy").mkdir()
    summary = tmp_path / "summary.md"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "EVALKIT_DATA": str(release),
        "MODEL": str(network(0.0)),
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(summary),
    }

    def run(command: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", command],
            env={**environment, **changes}, cwd=tmp_path,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = run(evaluate)
    assert done.returncode == 0, done.stderr
    baseline = tmp_path / "accuracy" / "baseline.json"
    assert (
        main(["gate", str(tmp_path / "result.json"), "--baseline", str(baseline), "--update"]) == 0
    )
    if worse:
        assert run(evaluate, MODEL=str(network(3.0))).returncode == 0
    done = run(gate)
    assert done.returncode == int(worse), done.stdout + done.stderr
    assert ("::error title=evalkit gate%3A tar@far=1e-01::" in done.stdout) is worse
    assert ("FAIL" if worse else "PASS") in summary.read_text().splitlines()[0]
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert (int(suite.attrib["failures"]) > 0) is worse
    assert suite.attrib["errors"] == "0"


def test_the_examples_keep_what_the_commands_write() -> None:
    kept = read("github-actions.yml")["jobs"]["gate"]["steps"][-1]["with"]["path"].split()
    assert kept == ["result.json", "result.scores.npz", "verdict.json", "gate.xml"]
    assert read("gitlab-ci.yml")["accuracy"]["artifacts"]["paths"] == [
        "result.json", "result.scores.npz", "verdict.json", "gate.md",
    ]  # fmt: skip
