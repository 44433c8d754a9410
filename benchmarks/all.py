"""Run every benchmark in a process of its own; print its ratio and the seconds that it took.

    python benchmarks/all.py --quick        # small arguments: shows that each still runs
    python benchmarks/all.py                # each at its full size: an hour
    python benchmarks/all.py --only nms --only worker

The ratio is the first number after the word in the last line that has it: how many times as fast
as the slow way, or what share of the bare rate is kept. The exit code is 1 where a benchmark fails.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOLDER = Path(__file__).parent
NO_BENCHMARKS = {"all", "wider_set", "wider_slow"}
QUICK = {
    "ap_bootstrap": "--images 60 --replicates 100",
    "backend_table": "--exclude torch --exclude openvino --exclude tvm --batch-sizes 1 --repeats 1 "
    "--seconds 0.05",
    "backends": "--batch-sizes 1 --turns 3 --turn-seconds 0.01",
    "detection_pipeline": "--rounds 1 --repeats 1",
    "ijb_protocol": "--scale 0.01",
    "ijb_read": "--scale 0.03 --repeat 1 --reference-rows 2000",
    "lfw_protocol": "--pairs 600 --dimensions 64 --repeats 1",
    "nms": "--scale 0.1",
    "pipeline": "--repeats 1",
    "subject_bootstrap": "--scale 0.02 --replicates 100",
    "widerface_eval": "--images 30 --repeat 1",
    "worker": "--batch-size 2 --rounds 4",
}


def arguments(name: str, work: Path, *, quick: bool) -> list[str]:
    """Return a benchmark's arguments; results that it would keep go to a temporary folder."""
    words = QUICK[name].split() if quick else []
    return [*words, "--work", str(work)] if name == "backend_table" else words


def ratio(output: str) -> str:
    """Return the ratio that a benchmark printed, or a dash where it compares nothing."""
    figures = re.findall(r"\bratio\b\D*?(\d+(?:\.\d+)?)", output)
    return figures[-1] if figures else "-"


def run(name: str, *, quick: bool) -> bool:
    """Run one benchmark and print its line; show what it printed where it fails."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, str(FOLDER / f"{name}.py")]
        done = subprocess.run(
            [*command, *arguments(name, Path(work), quick=quick)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    seconds = time.perf_counter() - start
    result = ratio(done.stdout) if done.returncode == 0 else f"FAILED ({done.returncode})"
    print(f"{name:20} {result:>12} {seconds:7.1f} s", flush=True)
    if done.returncode:
        print(done.stdout, flush=True)
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="at a small scale")
    parser.add_argument("--only", action="append", metavar="NAME", help="repeatable")
    options = parser.parse_args()
    names = sorted({path.stem for path in FOLDER.glob("*.py")} - NO_BENCHMARKS)
    if names != sorted(QUICK):
        parser.error(f"name small arguments for each of {', '.join(names)} in QUICK")
    unknown = set(options.only or ()) - set(names)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(names)}")
    passed = [run(name, quick=options.quick) for name in options.only or names]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
