# SPDX-License-Identifier: Apache-2.0
"""Space-filling curves: one 64-bit key per site, so that sites close in key order are close in space.

Keys start with the batch index, so samples stay apart when rows are sorted by key.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MAX_DEPTH = {2: 31, 3: 21}

# Steps that spread the bits of a number apart: shift left, or, mask. Two axes leave one gap bit, three leave two.
_SPREAD = {
    2: (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ),
    3: (
        (32, 0x001F00000000FFFF),
        (16, 0x001F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ),
}


def morton_key(coords: Tensor, depth: int | None = None) -> Tensor:
    """Place on the Morton (Z-order) curve: the bits of the coordinates interleaved, those of x lowest.

    Args:
        coords: (N, 1 + D) integer, batch first, then (z, y, x) or (y, x); D = 2 or 3. Not negative: a cloud with
            negative sites is moved first, ``coords[:, 1:] - coords[:, 1:].amin(0)``.
        depth: bits per axis, at most 31 (D = 2) or 21 (D = 3); None: as many as the largest coordinate needs. Morton
            keys of a site are the same for every depth, but for the place of the batch index.

    Returns:
        (N,) int64: ``batch << (D * depth) | code``.

    Raises:
        TypeError: coords is not integer.
        ValueError: wrong shape, a coordinate outside [0, 2^depth), or a batch index that does not fit beside the code.
    """
    batch, axes, depth = _checked(coords, depth)
    return _with_batch(batch, _interleaved(axes), depth, len(axes))


def hilbert_key(coords: Tensor, depth: int | None = None) -> Tensor:
    """Place on the Hilbert curve: sites with consecutive keys are neighbours across a face.

    Skilling's transform (Programming the Hilbert curve, AIP Conf. Proc. 707, 2004). Arguments, result and errors as in
    ``morton_key``, but keys depend on ``depth``: give one depth to clouds whose keys are compared.
    """
    batch, axes, depth = _checked(coords, depth)
    return _with_batch(batch, _interleaved(_transposed_hilbert(axes, depth)), depth, len(axes))


def _transposed_hilbert(axes: list[Tensor], depth: int) -> list[Tensor]:
    """Coordinates to the bits of the Hilbert index, dealt to the axes in turn."""
    x = list(axes)
    # Undo the rotations and reflections of the coarser cells, from the coarsest down.
    for level in range(depth - 1, 0, -1):
        below = (1 << level) - 1
        for axis in range(len(x)):
            high = (x[axis] >> level & 1).bool()
            swap = torch.where(high, 0, (x[0] ^ x[axis]) & below)
            x[0] = torch.where(high, x[0] ^ below, x[0] ^ swap)
            if axis:
                x[axis] = x[axis] ^ swap
    # Gray code.
    for axis in range(1, len(x)):
        x[axis] = x[axis] ^ x[axis - 1]
    flips = torch.zeros_like(x[0])
    for level in range(depth - 1, 0, -1):
        flips = torch.where((x[-1] >> level & 1).bool(), flips ^ ((1 << level) - 1), flips)
    return [values ^ flips for values in x]


def _interleaved(axes: list[Tensor]) -> Tensor:
    """One number from the bits of all axes, the last axis lowest."""
    code = torch.zeros_like(axes[0])
    for place, values in enumerate(reversed(axes)):
        for shift, mask in _SPREAD[len(axes)]:
            values = (values | (values << shift)) & mask
        code |= values << place
    return code


def _with_batch(batch: Tensor, code: Tensor, depth: int, ndim: int) -> Tensor:
    bits = ndim * depth
    if len(batch) and int(batch.amax()) >= 1 << (63 - bits):
        row = int(batch.argmax())
        raise ValueError(f"batch index {int(batch[row])} of row {row} does not fit beside {bits} bits; lower depth")
    return batch << bits | code


def _checked(coords: Tensor, depth: int | None) -> tuple[Tensor, list[Tensor], int]:
    """Batch indices, one int64 tensor per axis, and the depth."""
    if coords.ndim != 2 or coords.shape[1] - 1 not in _MAX_DEPTH:
        raise ValueError(f"coords must be (N, 1 + D) with D = 2 or 3, batch first, not of shape {tuple(coords.shape)}")
    if coords.is_floating_point() or coords.is_complex() or coords.dtype == torch.bool:
        raise TypeError(f"coords must be integer, not {coords.dtype}")
    most = _MAX_DEPTH[coords.shape[1] - 1]
    rows = coords.long()
    if depth is None:
        depth = max(int(rows[:, 1:].amax()).bit_length(), 1) if len(rows) else 1
        depth = min(depth, most)
    if not 1 <= depth <= most:
        raise ValueError(f"depth must be from 1 to {most} for {coords.shape[1] - 1} axes, not {depth}")
    outside = (rows < 0).any(1) | (rows[:, 1:] >= 1 << depth).any(1)
    if bool(outside.any()):
        row = int(outside.nonzero()[0, 0])
        raise ValueError(
            f"coords row {row} is {tuple(rows[row].tolist())}, but keys of depth {depth} need coordinates from 0 to "
            f"{(1 << depth) - 1}; subtract the smallest coordinate, or raise depth (at most {most})"
        )
    return rows[:, 0], list(rows[:, 1:].unbind(1)), depth
