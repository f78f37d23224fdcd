# SPDX-License-Identifier: Apache-2.0
import math
import sys

import pytest
import torch

from vision3d.bench.memory import peak_extra_bytes
from vision3d.bench.timing import MM_FLOPS, Case, MatrixProduct, take_turns


def test_the_limit_against_itself_is_one() -> None:
    product = MatrixProduct()
    found = take_turns({"mm": Case(product, MM_FLOPS), "nothing": Case(lambda: None)}, 1, 5)
    share = found["mm"].share
    assert share is not None
    assert 0.3 < share < 3
    assert found["nothing"].share is None
    assert found["nothing"].median_ms < found["mm"].median_ms
    assert found["mm"].best_ms <= found["mm"].median_ms
    assert found["mm"].n == 5


def test_every_case_runs_once_more_than_it_is_counted() -> None:
    calls: list[str] = []
    take_turns({"a": Case(lambda: calls.append("a")), "b": Case(lambda: calls.append("b"))}, 1, 2)
    assert calls == ["a", "b"] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's high-water mark is read from /proc")
def test_peak_memory_of_a_call() -> None:
    def through_a_large_array() -> torch.Tensor:
        return torch.ones(40, 1 << 20).sum(0)

    peak = peak_extra_bytes(through_a_large_array)
    assert peak is not None
    assert math.isclose(peak / 2**20, 4 * 41, rel_tol=0.1)
    small = peak_extra_bytes(lambda: None)
    assert small is not None
    assert small < 2**21
