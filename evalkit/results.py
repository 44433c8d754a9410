"""Names that plug-ins import from here; they live in `evalkit.core.results`."""

from evalkit.core.results import *  # noqa: F403
