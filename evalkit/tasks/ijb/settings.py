"""Settings of the IJB evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import field_validator, model_validator

from evalkit.core.option import Option
from evalkit.core.settings import DATA, PROTOCOL, READY, RunSettings, refuse_limit

_EXAMPLES = """\
examples:
  evalkit {name}                                     the embedded sample and its model
  evalkit {name} --data RELEASE --model backbone.onnx --output fp32.json
  evalkit {name} --data RELEASE --model r50.yaml --backend torch --one-to-n
  evalkit {name} --data RELEASE --features feats.npy --far 1e-5,1e-4
"""


class IjbSettings(RunSettings):
    """Settings of ``evalkit ijbc`` and ``evalkit ijbb``."""

    takes = "embedding"
    examples = _EXAMPLES

    data: Annotated[
        Path | None,
        Option(
            "release folder with meta/ and loose_crop/, or the folder that holds it",
            DATA,
            "cell",
            "PATH",
            default="$EVALKIT_DATA, else the sample",
        ),
    ] = None
    keep_norm: Annotated[
        bool,
        Option("keep each feature's norm when a template is pooled (switch N)", PROTOCOL, "figure"),
    ] = True
    detector_score: Annotated[
        bool, Option("weigh each face by its detector score (switch D)", PROTOCOL, "figure")
    ] = True
    flip: Annotated[
        Literal["none", "sum", "concat"],
        Option("how to join the mirrored image's feature (switch F)", PROTOCOL, "figure"),
    ] = "sum"
    rule: Annotated[
        Literal["at_most", "insightface_nearest", "interpolated"],
        Option("how to read TAR at a FAR", PROTOCOL, "figure"),
    ] = "at_most"
    far: Annotated[
        tuple[float, ...],
        Option("FAR targets of TAR", PROTOCOL, "figure", "X,X,...", chooses=True),
    ] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    intervals: Annotated[
        bool,
        Option(
            "intervals of TAR by the rule at_most, from resampled subjects",
            PROTOCOL,
            "figure",
            chooses=True,
        ),
    ] = True
    one_to_n: Annotated[
        bool, Option("also evaluate 1:N identification", PROTOCOL, "figure", chooses=True)
    ] = False
    identification_rule: Annotated[
        Literal["open_set", "insightface_closed"],
        Option("how to evaluate 1:N identification", PROTOCOL, "figure"),
    ] = "open_set"
    features: Annotated[
        Path | None,
        Option("features, one row for each face, in the order of the images", READY, "file", "NPY"),
    ] = None
    features_flip: Annotated[
        Path | None, Option("features of the mirrored images", READY, "file", "NPY")
    ] = None
    templates: Annotated[
        Path | None,
        Option("template_id and features, one row for each template", READY, "file", "NPZ"),
    ] = None
    scores: Annotated[
        Path | None,
        Option(
            "scores in the order of the pairs: .npz, .npy or a text file", READY, "file", "FILE"
        ),
    ] = None

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
