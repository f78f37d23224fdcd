# SPDX-License-Identifier: Apache-2.0
"""Sequences whose items are made when they are looked at, so that a run may be larger than the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class Lazy(Sequence[T], Generic[T]):
    """``count`` items; ``get(i)`` makes the one at position i. Nothing is kept: looking twice makes it twice.

    A slice is lazy too.
    """

    def __init__(self, count: int, get: Callable[[int], T]) -> None:
        self._count = count
        self._get = get

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Lazy[T]: ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            positions = range(self._count)[index]
            return Lazy(len(positions), lambda i: self._get(positions[i]))
        if not -self._count <= index < self._count:
            raise IndexError(f"item {index} of {self._count}")
        return self._get(range(self._count)[index])
