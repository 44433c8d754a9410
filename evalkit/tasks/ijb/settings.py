"""Settings of the IJB evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import field_validator, model_validator

from evalkit.core.settings import RunSettings, refuse_limit


class IjbSettings(RunSettings):
    """Settings of ``evalkit ijbc`` and ``evalkit ijbb``."""

    takes = "embedding"

    keep_norm: bool = True
    detector_score: bool = True
    flip: Literal["none", "sum", "concat"] = "sum"
    rule: Literal["at_most", "insightface_nearest", "interpolated"] = "at_most"
    far: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    one_to_n: bool = False
    intervals: bool = True
    identification_rule: Literal["open_set", "insightface_closed"] = "open_set"
    features: Path | None = None
    features_flip: Path | None = None
    templates: Path | None = None
    scores: Path | None = None

    @field_validator("far")
    @classmethod
    def _in_range(cls, far: tuple[float, ...]) -> tuple[float, ...]:
        if not far or any(not 0 < value < 1 for value in far):
            raise ValueError("give at least one FAR, each between 0 and 1")
        return tuple(sorted(set(far)))

    @model_validator(mode="after")
    def _one_source(self) -> IjbSettings:
        given = [n for n in ("features", "templates", "scores") if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(f"give only one of --{' and --'.join(given)}")
        if self.features_flip is not None and self.features is None:
            raise ValueError("--features-flip needs --features")
        if self.one_to_n and self.scores is not None:
            raise ValueError(
                "--one-to-n needs templates, not scores of pairs; leave out --one-to-n or --scores"
            )
        refuse_limit(self, "features", "scores")
        return self
