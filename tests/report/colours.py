"""The colours of the page, which of them are text on which grounds, and contrast."""

from __future__ import annotations

from typing import Final

from evalkit.report.page.chart import SERIES
from evalkit.report.page.writing import palette

PALETTE: Final = palette()

TEXT_ON: Final = (
    *(("ink", ground) for ground in ("page", "card", "soft")),
    *(("faint", ground) for ground in ("page", "card", "soft")),
    *(("link", ground) for ground in ("page", "card", "soft")),
    *((name, ground) for name in ("pass", "fail", "open", "none") for ground in ("card", "page")),
    *((name, f"{name}-soft") for name in ("pass", "fail", "open", "none")),
    *(("ink", f"{name}-soft") for name in ("pass", "fail", "open", "none")),
    *((f"run{index}", ground) for index in range(SERIES) for ground in ("card", "soft")),
)
"""Which colours are text on which grounds."""


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colours, as WCAG 2.2 defines it."""
    dark, light = sorted((_luminance(first), _luminance(second)))
    return round((light + 0.05) / (dark + 0.05), 3)


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
