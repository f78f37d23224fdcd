# SPDX-License-Identifier: Apache-2.0
"""Weight layouts: torch's dense convolutions store (Cout, Cin / groups, k...), the transposed ones
(Cin, Cout / groups, k...); ours is (K, Cin / groups, Cout) for both, offsets in C order."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor


def from_dense(weight: Tensor, groups: int = 1, transposed: bool = False) -> Tensor:
    """(K, Cin / groups, Cout) from the weight of a torch convolution of any number of axes; a copy, contiguous."""
    if not transposed:
        return weight.flatten(2).permute(2, 1, 0).clone(memory_format=torch.contiguous_format)
    rows, columns = weight.shape[:2]
    split = weight.reshape(groups, rows // groups, columns, -1)
    return split.permute(3, 1, 0, 2).reshape(-1, rows // groups, groups * columns).clone()


def to_dense(weight: Tensor, kernel_size: Sequence[int], groups: int = 1, transposed: bool = False) -> Tensor:
    """The weight of a torch convolution from (K, Cin / groups, Cout); a copy, contiguous.

    Raises:
        ValueError: K is not the kernel's volume.
    """
    volume, rows, columns = weight.shape
    if volume != prod(kernel_size):
        raise ValueError(
            f"weight has {volume} kernel offsets, kernel_size {tuple(kernel_size)} has {prod(kernel_size)}"
        )
    if not transposed:
        return weight.permute(2, 1, 0).reshape(columns, rows, *kernel_size).clone()
    split = weight.reshape(volume, rows, groups, columns // groups).permute(2, 1, 3, 0)
    return split.reshape(groups * rows, columns // groups, *kernel_size).clone()
