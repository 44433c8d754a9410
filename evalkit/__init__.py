"""Accuracy evaluation of face recognition and detection models, per backend and precision.

The folders of a checkout are the map: `evalkit/` is this package, and its siblings `datasets/`,
`protocols/`, `widerface_eval/` and `configs/` install below it as `evalkit.datasets` and so on.
"""

import os as _os

__version__ = "0.1.0"

# In a checkout, `python -m evalkit` finds this folder before an installed copy, and the siblings
# are beside it, not below it. Looking there too makes a checkout work however it was installed.
_checkout = _os.path.dirname(_os.path.dirname(_os.path.abspath(__file__)))  # noqa: PTH100, PTH120
if _os.path.isfile(_os.path.join(_checkout, "protocols", "__init__.py")):  # noqa: PTH113, PTH118
    __path__.append(_checkout)
