# SPDX-License-Identifier: Apache-2.0
"""Random clouds, tables and numbers for the fuzzer, and ways to spoil them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import torch
from torch import Tensor

from vision3d.sparse import KernelMap, SparseTensor

INT32 = torch.iinfo(torch.int32)
INT64 = torch.iinfo(torch.int64)
EXTREMES = (0, -1, 1, 2, 63, 64, 65, INT32.min, INT32.min + 1, INT32.max, INT32.max - 1, 2**31, 2**32, 2**40, 2**62)
WILD = (*EXTREMES, INT64.max, INT64.min, 2**63, 2**64, -(2**63) - 1, 2**100)
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.bool)
OTHERS: tuple[Any, ...] = (None, True, 1.5, float("nan"), "x", b"x", [], [1, 2], (3,), {}, object, 7)


class Source:
    """All randomness of one case, from its seed and number alone."""

    def __init__(self, seed: int, case: int) -> None:
        self.random = Random(f"{seed}/{case}")
        self.generator = torch.Generator().manual_seed(self.random.getrandbits(60))

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def below(self, end: int) -> int:
        return self.random.randrange(end)

    def choice(self, values: Sequence[Any]) -> Any:
        return self.random.choice(values)

    def mostly(self, *values: Any, wrong: Any = "?") -> Any:
        """One of the values, at times a wrong one."""
        return wrong if self.chance(0.03) else self.random.choice(values)

    def number(self, low: int, high: int, wild: float = 0.05) -> Any:
        """From low to high, at times anything."""
        return self.choice(WILD) if self.chance(wild) else self.random.randint(low, high)

    def axes(self, ndim: int, low: int, high: int, wild: float = 0.03) -> Any:
        """One integer, or one per axis, at times too many or too few, or anything."""
        if self.chance(0.4):
            return self.number(low, high, wild)
        count = ndim if not self.chance(wild) else self.below(6)
        return tuple(self.number(low, high, wild) for _ in range(count))

    def rows(self) -> int:
        """Often a few, at times about the size of a block of the engine, seldom none."""
        return self.choice((0, 1, 2, 5, 17, 30, 30, 60, 63, 64, 65, 127, 128, 129, 200))

    def cloud(self, ndim: int | None = None, rows: int | None = None) -> Tensor:
        """(N, 1 + D) int32: packed, spread, near the ends of int32; duplicates are likely in packed ones."""
        ndim = self.choice((1, 2, 3, 3, 3, 4)) if ndim is None else ndim
        n = self.rows() if rows is None else rows
        extent = self.choice((2, 4, 6, 6, 9, 30, 1000, 2**15, 2**20, 2**31 - 1))
        low = self.choice((0, 0, 0, -3, -1000, INT32.min, INT32.max - extent))
        space = torch.randint(0, extent, (n, ndim), generator=self.generator) + low
        batch = torch.randint(0, self.choice((1, 1, 2, 3, 40)), (n, 1), generator=self.generator)
        return torch.cat([batch, space.clamp(INT32.min, INT32.max)], 1).int()

    def sites(self, ndim: int | None = None) -> Tensor:
        """A cloud without duplicates, sorted, with a moderate extent."""
        ndim = self.choice((1, 2, 3, 3, 3, 4)) if ndim is None else ndim
        n = self.rows()
        extent = self.choice((2, 4, 6, 9, 30, 5000))
        space = torch.randint(0, extent, (n, ndim), generator=self.generator) - self.choice((0, 0, 3, 4000))
        batch = torch.randint(0, self.choice((1, 1, 2, 3)), (n, 1), generator=self.generator)
        return torch.unique(torch.cat([batch, space], 1), dim=0).int()

    def values(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(dtype)

    def tensor(self, ndim: int | None = None, channels: int = 4, dtype: torch.dtype = torch.float32) -> SparseTensor:
        coords = self.sites(ndim)
        coords = coords[torch.randperm(len(coords), generator=self.generator)]
        return SparseTensor(coords, self.values(len(coords), channels, dtype=dtype), batch_size=self.mostly(3, wrong=4))


def forged_index(s: Source, keys: Tensor, layout: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending keys and a layout whose multipliers descend, as they must, but which no cloud has."""
    powers = sorted((s.random.getrandbits(s.choice((2, 8, 31, 62, 63))) for _ in range(layout.shape[1])), reverse=True)
    layout = layout.clone()
    layout[1] = torch.tensor([max(1, min(p, INT64.max)) for p in powers])
    if s.chance(0.7):
        layout[1, -1] = 1
    if s.chance(0.5):
        layout[1, 0] = s.choice((2**62, INT64.max, INT64.max // 2, int(layout[1, 1])))
    elif s.chance(0.2):
        layout[1] = 1
    if s.chance(0.5):
        keys = keys + (INT64.max - s.choice((0, 1, 63, 2**31, 2**62)) - (int(keys[-1]) if len(keys) else 0))
    return keys, layout


def spoiled(s: Source, value: Any) -> Any:
    """Something like the value that is wrong as a rule."""
    if s.chance(0.04):
        return s.choice(OTHERS)
    if isinstance(value, Tensor):
        return _spoiled_tensor(s, value)
    if isinstance(value, bool):
        return s.choice((not value, 1, None, "yes"))
    if isinstance(value, int):
        return s.choice(WILD)
    if isinstance(value, list | tuple):
        return _spoiled_list(s, list(value))
    if isinstance(value, KernelMap):
        return spoiled_map(s, value)
    if isinstance(value, str):
        return s.choice(("", "sum", "max", "mean", "first", "zyx", "dense", "floor", "\0", "x" * 1000))
    return s.choice((*OTHERS, *EXTREMES))


def spoiled_map(s: Source, kernel_map: KernelMap) -> KernelMap:
    """The map with one or two of its fields spoiled."""
    for _ in range(s.choice((1, 1, 2))):
        name = s.choice(list(kernel_map.__dataclass_fields__))
        kernel_map = replace(kernel_map, **{name: spoiled(s, getattr(kernel_map, name))})
    return kernel_map


def _spoiled_list(s: Source, values: list[Any]) -> list[Any]:
    if values and s.chance(0.7):
        values[s.below(len(values))] = s.choice((*WILD, 1.5, None, "1"))
    elif s.chance(0.5):
        values = values[:-1]
    else:
        values = [*values, s.choice(EXTREMES)]
    return values


def _spoiled_tensor(s: Source, value: Tensor) -> Any:
    kind = s.below(14)
    if kind <= 3 and value.numel() and value.layout == torch.strided:  # one to three entries: the most telling
        value = value.detach().clone().contiguous()
        flat = value.view(-1)
        for _ in range(s.choice((1, 1, 2, 3))):
            flat[s.below(len(flat))] = _entry(s, value)
        return value
    if kind == 4:
        return value.to(s.choice(DTYPES))
    if kind == 5 and value.ndim:
        return value[:-1]
    if kind == 6 and value.ndim:
        return torch.cat([value, value[:1]])
    if kind == 7 and value.ndim:
        return value.flip(0)
    if kind == 8:
        return value.unsqueeze(0) if s.chance(0.5) else value.flatten()
    if kind == 9 and value.ndim == 2:
        return s.choice((value.t(), value[:, ::2], value[::2], value[:, :0], value[:0], value.t().contiguous()))
    if kind == 10:
        return torch.zeros_like(value, device="meta") if s.chance(0.5) else torch.zeros(())
    if kind == 11:
        return value.detach().numpy() if value.dtype not in (torch.bfloat16,) else value.tolist()
    if kind == 12:
        return value.clone().requires_grad_() if value.is_floating_point() else torch.zeros_like(value)
    return value.new_empty((0, *value.shape[1:])) if value.ndim else value


def _entry(s: Source, value: Tensor) -> Any:
    """An extreme number that the dtype can hold."""
    if value.is_floating_point():
        return s.choice((float("nan"), float("inf"), -float("inf"), 1e30, -1e-40, 0.0))
    if value.dtype == torch.bool:
        return s.chance(0.5)
    kinds = torch.iinfo(value.dtype)
    near = s.choice((value.numel(), value.shape[0] - 1, value.shape[0] + 1, int(value.view(-1)[0]) + 1))
    found: int = s.choice((*EXTREMES, kinds.max, kinds.min, near))
    return min(max(found, kinds.min), kinds.max)
