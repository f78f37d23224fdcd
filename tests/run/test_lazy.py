# SPDX-License-Identifier: Apache-2.0
"""Lazy sequences behave like lists, and truths are read no more often and kept no longer than they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision3d.run.data import data_identity
from vision3d.run.files import digest
from vision3d.run.lazy import Lazy
from vision3d.run.truths import KeptTruths, lazy_truths, size_bytes
from vision3d.types import FrameTruth

bounds = st.none() | st.integers(-12, 12)


@given(st.integers(0, 9), bounds, bounds, st.none() | st.integers(-3, 3).filter(bool), st.integers(-12, 12))
def test_it_is_indexed_and_cut_like_a_list(
    count: int, start: int | None, stop: int | None, step: int | None, at: int
) -> None:
    wanted, lazy = [10 * i for i in range(count)], Lazy(count, lambda i: 10 * i)
    assert (len(lazy), list(lazy), bool(lazy)) == (count, wanted, bool(wanted))
    assert list(lazy[start:stop:step]) == wanted[start:stop:step]
    assert list(lazy[start:stop:step][::-1]) == wanted[start:stop:step][::-1]
    if -count <= at < count:
        assert lazy[at] == wanted[at]
    else:
        with pytest.raises(IndexError):
            lazy[at]


def test_nothing_is_made_before_it_is_looked_at() -> None:
    made: list[int] = []
    lazy = Lazy(5, lambda i: made.append(i))
    cut = lazy[1:4]
    assert (len(cut), made) == (3, [])
    cut[-1]
    lazy[0]
    lazy[0]
    assert made == [3, 0, 0]


def test_a_digest_is_that_of_the_list() -> None:
    truths = [FrameTruth(k * np.eye(4)) for k in range(3)]
    assert digest(Lazy(3, truths.__getitem__)) == digest(truths)
    assert digest({"a": Lazy(0, truths.__getitem__)}) == digest({"a": []})


class Large:
    """A reader of truths of 1 MB each, which counts how often each is read."""

    name, samples = "large", int

    def __init__(self, count: int) -> None:
        self.count = count
        self.bad: dict[int, str] = {}
        self.reads: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index

    def key(self, index: int) -> str:
        return str(index)

    def truth(self, index: int) -> Any:
        self.reads.append(index)
        return np.full(125_000, float(index))


def test_small_truths_are_read_once_and_large_ones_again() -> None:
    base = Large(4)
    reader = KeptTruths(base, budget_bytes=2_500_000)
    for _ in range(2):
        assert [truth[0] for truth in lazy_truths(reader)] == [0, 1, 2, 3]
    assert base.reads == [0, 1, 2, 3, 2, 3]


def test_the_size_of_a_truth_counts_its_arrays() -> None:
    assert 1_000_000 < size_bytes(np.zeros(125_000)) < 1_001_000
    assert 128 < size_bytes(FrameTruth(np.eye(4))) < 1000
    assert size_bytes([{"a": np.zeros(1000)}, (np.zeros(1000),)]) > 16_000


def test_an_identity_reads_each_truth_once_and_holds_none() -> None:
    base = Large(3)
    found = data_identity(base)
    assert base.reads == [0, 1, 2]
    assert found["truth"].startswith("3 (")
    base.bad = {1: "broken"}
    assert data_identity(base)["truth"].startswith("2 (")


def test_truths_that_follow_from_a_recipe_are_not_read() -> None:
    base = Large(3)
    base.truth_identity = "room?seed=1"  # type: ignore[attr-defined]
    first = data_identity(KeptTruths(base))
    assert base.reads == []
    assert first["truth"].startswith("3 (")
    base.truth_identity = "room?seed=2"  # type: ignore[attr-defined]
    assert data_identity(base)["truth"] != first["truth"]
    assert data_identity(base)["samples"] == first["samples"]
