"""Settings of the evaluation of WIDER FACE."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from evalkit.core.detection import DetectionSettings
from evalkit.core.option import Option
from evalkit.core.settings import DATA, OUTPUT, PROTOCOL, READY

_EXAMPLES = """\
examples:
  evalkit widerface                                  the embedded sample and its detector
  evalkit widerface --data WIDER --model scrfd-500m.yaml --output fp32.json
  evalkit widerface --data WIDER --model net.onnx --head retinaface --mean 104,117,123 --std 1 \\
      --color bgr --sizing original
  evalkit widerface --predictions PRED_DIR --ground-truth GT_DIR
  evalkit widerface --data WIDER --model scrfd-500m.yaml --save-images looks
"""


class WiderFaceSettings(DetectionSettings):
    """Settings of ``evalkit widerface``."""

    examples = _EXAMPLES

    data: Annotated[
        Path | None,
        Option(
            "folder with WIDER_val/images or images/, and the ground truth",
            DATA,
            "cell",
            "PATH",
            default="$EVALKIT_DATA, else the sample",
        ),
    ] = None
    ground_truth: Annotated[
        Path | None,
        Option("folder of the official .mat files", PROTOCOL, "figure", "DIR", default="in --data"),
    ] = None
    events: Annotated[
        tuple[str, ...], Option("evaluate only these events", PROTOCOL, "figure", "NAME,...")
    ] = ()
    rule: Annotated[
        Literal["python", "python_file_order", "matlab", "matlab_int"],
        Option("which evaluation to follow", PROTOCOL, "figure"),
    ] = "python"
    iou: Annotated[float, Option("least overlap of a match", PROTOCOL, "figure", "X")] = Field(
        default=0.5, gt=0, le=1
    )
    steps: Annotated[int, Option("thresholds of the curve", PROTOCOL, "figure", "N")] = Field(
        default=1000, ge=1
    )
    predictions: Annotated[
        Path | None,
        Option("folder of EVENT/IMAGE.txt, or a .json or .npz file", READY, "file", "PATH"),
    ] = None
    allow_missing: Annotated[
        bool,
        Option(
            "count a missing file as no detection; the result is partial, and no gate takes it",
            READY,
            "figure",
            only_on=True,
        ),
    ] = False
    write_predictions: Annotated[
        Path | None,
        Option(
            "write the detections: a folder, or a .json or .npz file",
            OUTPUT,
            "file",
            "PATH",
            writes="new",
        ),
    ] = None
    save_images: Annotated[
        Path | None,
        Option(
            "write the curves, and pictures of the worst images",
            OUTPUT,
            "file",
            "DIR",
            writes="folder",
        ),
    ] = None
