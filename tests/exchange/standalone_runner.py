"""What runs on a board, in small: knows nothing of evalkit, names outputs as ais_bench does."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

model, dump, outputs, form = sys.argv[1:5]
session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
Path(outputs).mkdir()
for line in (Path(dump) / "inputs.info").read_text().splitlines():
    _, file, width, height = line.split()
    tensor = np.fromfile(Path(dump) / file, np.float32).reshape(-1, 3, int(height), int(width))
    for number, value in enumerate(session.run(None, {session.get_inputs()[0].name: tensor})):
        out = Path(outputs) / f"{Path(file).stem}_{number}.{form}"
        if form == "bin":
            value.tofile(out)
        elif form == "npy":
            np.save(out, value)
        else:
            out.write_text(" ".join(f"{one:.9g}" for one in value.ravel().tolist()))
