"""Start of a worker, run as a script by an interpreter that may have NumPy and nothing else.

It makes evalkit's own folder importable as the package ``evalkit`` and no more of this
environment: packages of one interpreter must not reach the other. Python 2 syntax errors aside,
any interpreter must be able to say what it lacks; so no newer syntax here.
"""

import importlib.util
import os
import sys

OLDEST = (3, 10)


def load_evalkit(folder):  # type: ignore[no-untyped-def]
    """Import a folder as the package ``evalkit``, with nothing beside it on the path."""
    spec = importlib.util.spec_from_file_location(
        "evalkit", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["evalkit"] = module
    spec.loader.exec_module(module)


def main():  # type: ignore[no-untyped-def]
    """Check the interpreter, then serve."""
    here = os.path.dirname(os.path.realpath(__file__))
    # A script's own folder comes first on the path: its names would hide those of packages.
    sys.path[:] = [path for path in sys.path if os.path.realpath(path or os.curdir) != here]
    if sys.version_info < OLDEST:
        sys.exit(
            "A worker of evalkit needs Python %d.%d or newer; this is %s. Make the environment "
            "with a newer one." % (OLDEST + (sys.version.split()[0],))
        )
    try:
        import numpy
    except ImportError as error:
        sys.exit(
            "This interpreter has no NumPy (%s). Run: %s -m pip install numpy"
            % (error, sys.executable)
        )
    load_evalkit(os.path.dirname(os.path.dirname(here)))
    from evalkit.backends.worker.serve import serve

    serve(numpy.__version__, *[int(word) for word in sys.argv[1:]])


if __name__ == "__main__":
    main()
