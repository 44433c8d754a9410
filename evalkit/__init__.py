"""Accuracy evaluation of face recognition and detection models, per backend and precision.

The folders of a checkout are the map: `evalkit/` is this package, and its siblings `datasets/`,
`protocols/`, `widerface_eval/` and `configs/` install below it as `evalkit.datasets` and so on.
"""

import importlib.machinery as _machinery
import importlib.util as _util
import os as _os
import sys as _sys
from collections.abc import Sequence as _Sequence

__version__ = "0.1.0"

_SIBLINGS = frozenset(
    f"evalkit.{name}" for name in ("configs", "datasets", "protocols", "widerface_eval")
)
_KERNELS = frozenset(("evalkit.heads._nms", "evalkit.widerface_eval._matching"))


class _Checkout:
    """Finds the four sibling folders and the compiled kernels of a checkout, and nothing else.

    In a checkout, ``python -m evalkit`` imports this folder before an installed copy. The siblings
    are beside it, not below it. They and the kernels must come from the same checkout: an installed
    copy may be of another version.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def find_spec(
        self, name: str, path: _Sequence[str] | None = None, target: object = None
    ) -> _machinery.ModuleSpec | None:
        """Return where a sibling of this checkout lies; None for every other module."""
        if name in _KERNELS:
            return self._kernel(name, path)
        if name not in _SIBLINGS:
            return None
        package = _os.path.join(self.folder, name.rpartition(".")[2])  # noqa: PTH118
        file = _os.path.join(package, "__init__.py")  # noqa: PTH118
        return _util.spec_from_file_location(name, file, submodule_search_locations=[package])

    def _kernel(self, name: str, path: _Sequence[str] | None) -> _machinery.ModuleSpec:
        spec = _machinery.PathFinder.find_spec(name, path)
        if spec is None:
            raise ImportError(
                f"The compiled kernel {name} is not built. In {self.folder} run: pip install -e . "
                "(or: python setup.py build_ext --inplace)."
            )
        return spec


_folder = _os.path.dirname(_os.path.dirname(_os.path.abspath(__file__)))  # noqa: PTH100, PTH120
if _os.path.isfile(_os.path.join(_folder, "protocols", "__init__.py")):  # noqa: PTH113, PTH118
    _sys.meta_path.insert(0, _Checkout(_folder))
