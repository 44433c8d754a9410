"""Names that plug-ins import from here; they live in `evalkit.core.errors`."""

from evalkit.core.errors import *  # noqa: F403
