"""TorchScript files that do not tell where they were made."""

from __future__ import annotations

import io
import zipfile


def without_debug_records(archive: io.BytesIO) -> bytes:
    """Drop from a TorchScript file the records that tie it to the machine that wrote it.

    They hold the paths of the source files, and are needed by no reader.
    """
    kept = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(kept, "w") as target:
        for record in source.infolist():
            if not record.filename.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(record.filename), source.read(record))
    return kept.getvalue()
