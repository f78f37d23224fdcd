# SPDX-License-Identifier: Apache-2.0
"""Truths read when they are looked at: kept while they are small, read again when they are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vision3d.contracts import Reader
from vision3d.run.data import Subset
from vision3d.run.lazy import Lazy

# Every method's score, the identity and the exhibit look at all truths: small ones are worth keeping.
BUDGET_BYTES = 64 << 20


class KeptTruths(Subset):
    """A reader that keeps the truths it has read, as far as they fit into the budget.

    The first ones are kept, none is ever thrown out: readers of truths go through them in order, again and again,
    and then a cache of the latest ones would never be hit.
    """

    def __init__(self, base: Reader, budget_bytes: int = BUDGET_BYTES) -> None:
        super().__init__(base, range(len(base)))
        self._kept: dict[int, Any] = {}
        self._left = budget_bytes

    def truth(self, index: int) -> Any | None:
        if index in self._kept:
            return self._kept[index]
        truth = self.base.truth(index)
        size = size_bytes(truth)
        if size <= self._left:
            self._left -= size
            self._kept[index] = truth
        return truth


def lazy_truths(reader: Reader) -> Lazy[Any]:
    """The truths of all samples, each read when it is looked at."""
    return Lazy(len(reader), reader.truth)


def size_bytes(value: Any) -> int:
    """Memory of the arrays in a nested value, and a guess of the rest."""
    if isinstance(value, np.ndarray):
        return 128 + int(value.nbytes)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return 128 + sum(size_bytes(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, Mapping):
        return 128 + sum(size_bytes(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return 128 + sum(size_bytes(item) for item in value)
    return 128
