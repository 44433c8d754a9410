"""The former place of `evalkit.stats.matches`."""

from evalkit.stats.matches import (
    REPLICATES,
    ImageBootstrap,
    ImageCounts,
    ap_difference,
    image_counts,
    weighted_ap,
)

__all__ = [
    "REPLICATES",
    "ImageBootstrap",
    "ImageCounts",
    "ap_difference",
    "image_counts",
    "weighted_ap",
]
