# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from relocalization.descriptor_storage import dequantize, quantize


def unit_rows(n: int, c: int) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(n, c)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_directions_are_kept() -> None:
    rows = unit_rows(500, 128)
    again = dequantize(*quantize(rows)).astype(np.float32)
    cosine = (rows * again).sum(axis=1) / np.linalg.norm(again, axis=1)
    assert cosine.min() > 1 - 2e-4


def test_storing_again_changes_nothing() -> None:
    once = dequantize(*quantize(unit_rows(500, 96)))
    assert dequantize(*quantize(once)).tobytes() == once.tobytes()


def test_zero_rows_and_no_rows() -> None:
    assert not dequantize(*quantize(np.zeros((3, 8), np.float32))).any()
    assert dequantize(*quantize(np.zeros((0, 8), np.float32))).shape == (0, 8)


def test_parts_of_two_maps_are_refused() -> None:
    levels, peak = quantize(unit_rows(4, 8))
    with pytest.raises(ValueError, match="4 descriptors but 3 peaks"):
        dequantize(levels, peak[:3])
