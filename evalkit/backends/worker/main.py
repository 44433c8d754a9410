"""Start of a worker: a script for an interpreter that may have NumPy and nothing else.

It makes evalkit's own folder importable as the package ``evalkit``, and nothing else of evalkit's
environment: packages of one interpreter must not reach the other. This file keeps to the syntax of
Python 3.6, so that an old interpreter can report that it is too old.
"""

import importlib.util
import sys
from pathlib import Path

OLDEST = (3, 10)


def load_evalkit(folder: Path) -> None:
    """Import a folder as the package ``evalkit``, without its parent on the path."""
    spec = importlib.util.spec_from_file_location(
        "evalkit", str(folder / "__init__.py"), submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None  # noqa: PT018 - one fact
    module = importlib.util.module_from_spec(spec)
    sys.modules["evalkit"] = module
    spec.loader.exec_module(module)


def main() -> None:
    """Check the interpreter, then serve."""
    here = Path(__file__).resolve().parent
    # A script's own folder comes first on the path: its names would hide those of packages.
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != here]
    if sys.version_info < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        sys.exit(
            f"A worker of evalkit needs Python {oldest} or newer; this is "
            f"{sys.version.split()[0]}. Make the environment with a newer one."
        )
    try:
        import numpy  # noqa: PLC0415 - it may be missing
    except ImportError as error:
        sys.exit(
            f"This interpreter has no NumPy ({error}). Run: {sys.executable} -m pip install numpy"
        )
    load_evalkit(here.parents[1])
    from evalkit.backends.worker.serve import serve  # noqa: PLC0415 - now there is such a package

    serve(numpy.__version__, *(int(word) for word in sys.argv[1:]))


if __name__ == "__main__":
    main()
