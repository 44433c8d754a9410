"""Colours of the page, light and dark; every text has a contrast of at least 4.5 to 1."""

from __future__ import annotations

from typing import Final, Literal

Scheme = Literal["light", "dark"]

SERIES = 6
"""Colours of runs; with five kinds of dashes, thirty runs can be told apart."""

# Hues of M. Okabe and K. Ito, "Color Universal Design", 2008, darkened or lightened until they are
# readable as text.
PALETTE: Final[dict[Scheme, dict[str, str]]] = {
    "light": {
        "page": "#f4f5f8",
        "card": "#ffffff",
        "soft": "#eceef3",
        "line": "#d5d9e2",
        "ink": "#161a22",
        "faint": "#525b6b",
        "link": "#0b5cad",
        "focus": "#0b5cad",
        "pass": "#00684a",
        "pass-soft": "#dff3ea",
        "fail": "#ae1f12",
        "fail-soft": "#fde6e1",
        "open": "#7a4d00",
        "open-soft": "#fdf0d4",
        "none": "#4a5362",
        "none-soft": "#e6e9ef",
        "run0": "#0067a3",
        "run1": "#b34a00",
        "run2": "#00765a",
        "run3": "#a33a7d",
        "run4": "#333a46",
        "run5": "#806000",
    },
    "dark": {
        "page": "#0f1218",
        "card": "#181c25",
        "soft": "#222836",
        "line": "#363e4f",
        "ink": "#eef1f6",
        "faint": "#a9b2c3",
        "link": "#7cbcff",
        "focus": "#7cbcff",
        "pass": "#5fdcae",
        "pass-soft": "#11352b",
        "fail": "#ff9c8c",
        "fail-soft": "#471a15",
        "open": "#f5c463",
        "open-soft": "#3d2e0c",
        "none": "#b6bfce",
        "none-soft": "#2a3140",
        "run0": "#6cbdf5",
        "run1": "#ff9a57",
        "run2": "#3fd0a2",
        "run3": "#ee9fd0",
        "run4": "#e4e8ef",
        "run5": "#e8c547",
    },
}

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


def properties(scheme: Scheme) -> str:
    """Return the scheme's colours as CSS custom properties.

    Examples
    --------
    >>> properties("light")[:15]
    '--page:#f4f5f8;'
    """
    return "".join(f"--{name}:{value};" for name, value in PALETTE[scheme].items())


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colours, as WCAG 2.2 defines it.

    Examples
    --------
    >>> contrast("#000000", "#ffffff")
    21.0
    """
    dark, light = sorted((_luminance(first), _luminance(second)))
    return round((light + 0.05) / (dark + 0.05), 3)


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
