"""Settings of the evaluation of the LFW family."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from evalkit.core.settings import RunSettings, refuse_limit


class LfwSettings(RunSettings):
    """Settings of ``evalkit lfw``; a set is used whole, so no image may fail unless it is said."""

    takes = "embedding"

    flip: bool = True
    rules: tuple[Literal["insightface", "exact", "facexzoo"], ...] = ("insightface", "exact")
    far: tuple[float, ...] = (1e-3,)
    folds: Literal["auto", "contiguous", "interleaved"] = "auto"
    embeddings: Path | None = None
    embeddings_flip: Path | None = None
    errors: Path | None = None
    max_failures: int = Field(default=0, ge=0)

    @field_validator("far")
    @classmethod
    def _in_range(cls, far: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < value < 1 for value in far):
            raise ValueError("each FAR must lie between 0 and 1")
        return tuple(sorted(set(far)))

    @field_validator("rules")
    @classmethod
    def _once(cls, rules: tuple[Any, ...]) -> tuple[Any, ...]:
        if not rules:
            raise ValueError("give at least one rule: insightface, exact or facexzoo")
        return tuple(dict.fromkeys(rules))

    @model_validator(mode="after")
    def _embeddings_first(self) -> LfwSettings:
        if self.embeddings_flip is not None and self.embeddings is None:
            raise ValueError("--embeddings-flip needs --embeddings")
        refuse_limit(self, "embeddings")
        return self
