"""Accuracy evaluation of face recognition and detection models, per backend and precision.

The folders of a checkout are the map: `evalkit/` is this package, and its siblings `datasets/`,
`protocols/`, `widerface_eval/` and `configs/` install below it as `evalkit.datasets` and so on.
"""

import importlib.machinery as _machinery
import importlib.util as _util
import os as _os
import sys as _sys

__version__ = "0.1.0"

_SIBLINGS = frozenset(
    f"evalkit.{name}" for name in ("configs", "datasets", "protocols", "widerface_eval")
)


class _Checkout:
    """Finds the four sibling folders of a checkout, and nothing else.

    In a checkout, ``python -m evalkit`` imports this folder before an installed copy. The siblings
    are beside it, not below it, and must come from the same checkout.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def find_spec(
        self, name: str, path: object = None, target: object = None
    ) -> _machinery.ModuleSpec | None:
        if name not in _SIBLINGS:
            return None
        package = _os.path.join(self.folder, name.rpartition(".")[2])  # noqa: PTH118
        file = _os.path.join(package, "__init__.py")  # noqa: PTH118
        return _util.spec_from_file_location(name, file, submodule_search_locations=[package])


_folder = _os.path.dirname(_os.path.dirname(_os.path.abspath(__file__)))  # noqa: PTH100, PTH120
if _os.path.isfile(_os.path.join(_folder, "protocols", "__init__.py")):  # noqa: PTH113, PTH118
    _sys.meta_path.insert(0, _Checkout(_folder))
