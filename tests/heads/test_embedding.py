"""The embedding head: one row for each image that ran."""

from __future__ import annotations

import numpy as np
import pytest

from evalkit.core.errors import InputError
from evalkit.heads.embedding import embedding


def test_the_rows_must_be_those_that_ran() -> None:
    value = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.testing.assert_array_equal(embedding({"y": value}, 3, rows=4), value[:3])
    for rows in (3, 5):
        with pytest.raises(InputError, match=rf"shape \(4, 6\).* each of the {rows} images"):
            embedding({"y": value}, 3, rows=rows)
