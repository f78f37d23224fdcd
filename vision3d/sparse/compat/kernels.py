# SPDX-License-Identifier: Apache-2.0
"""How each engine stores a convolution's kernel, as functions from and to taps: (k1, ..., kD, Cin / groups, Cout), the
axes in the order of that engine's coordinate columns. V is the number of offsets, k1 * ... * kD.

===========  =======================================================  ==============================================
layout       shape                                                    found in
===========  =======================================================  ==============================================
KRSC         (Cout, k1..kD, Cin)                                      spconv 2.2 and later; 2.1 for up to 32 offsets
RSKC         (k1..kD, Cout, Cin)                                      spconv 2.0; 2.1 for more than 32 offsets
RSCK         (k1..kD, Cin, Cout)                                      spconv 1
minkowski    (V, Cin, Cout), the first axis fastest                   MinkowskiEngine 0.5
torchsparse  the same; last axis fastest where V is even              torchsparse 1.4 to 2.1
dense        (Cout, Cin / groups, k1..kD); transposed layers          torch.nn
             (Cin, Cout / groups, k1..kD)
===========  =======================================================  ==============================================

A pointwise kernel (one offset, stride 1) is special. spconv 2 multiplies features by the weight's memory read as
(Cin, Cout), whatever its shape says; MinkowskiEngine and torchsparse store (Cin, Cout). Transposed and inverse layers
keep the number of the offset they undo in every engine. MinkowskiEngine's channelwise kernels are (V, C).

torchsparse's *generative* transposed layers number their offsets from the other end, which no shape shows: flip such
a kernel along its first axis before the conversion (read in its sources, not run).

Sources: spconv's ``pytorch/conv.py`` (1.2.1 to 2.3.8) and ``pytorch/ops.py``, MinkowskiEngine 0.5.4's
``src/kernel_region.hpp`` and ``src/coordinate_map_manager.cpp``, torchsparse's ``nn/utils/kernel.py`` (1.4, 2.1),
``hashmap_cuda.cuh`` and ``sparsemapping_cuda.cu``.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from torch import Tensor

from vision3d.sparse.layers import layout as dense

Shape = tuple[int, ...]


class Kernel(NamedTuple):
    """What a layout depends on.

    Attributes:
        size: kernel extent per axis, in the other engine's order of axes.
        cin: input channels.
        cout: output channels.
        groups: channel groups.
        pointwise: one offset, and stride 1.
        transposed: a transposed or inverse layer.
    """

    size: Shape
    cin: int
    cout: int
    groups: int
    pointwise: bool
    transposed: bool


def shapes(layout: str, kernel: Kernel) -> list[Shape]:
    """The shapes a weight may have in this layout, the one we write first; none where the engine has no such layer."""
    size, volume = kernel.size, prod(kernel.size)
    if layout == "dense":
        first, second = (kernel.cin, kernel.cout) if kernel.transposed else (kernel.cout, kernel.cin)
        return [(first, second // kernel.groups, *size)]
    if kernel.groups != 1:
        depthwise = kernel.groups == kernel.cin == kernel.cout
        return [(volume, kernel.cin)] if layout == "minkowski" and depthwise else []
    if layout in ("minkowski", "torchsparse"):
        offsets, matrix = (volume, kernel.cin, kernel.cout), (kernel.cin, kernel.cout)
        if volume > 1:
            return [offsets]
        return [matrix, offsets] if kernel.pointwise else [offsets, matrix]
    return {
        "KRSC": [(kernel.cout, *size, kernel.cin)],
        "RSKC": [(*size, kernel.cout, kernel.cin)],
        "RSCK": [(*size, kernel.cin, kernel.cout)],
    }[layout]


def read(layout: str, weight: Tensor, kernel: Kernel) -> Tensor:
    """Taps of a weight that has one of the layout's ``shapes``."""
    size, ndim = kernel.size, len(kernel.size)
    taps = (*size, kernel.cin // kernel.groups, kernel.cout)
    if layout == "dense":
        return dense.from_dense(weight, kernel.groups, kernel.transposed).reshape(taps)
    if layout in ("minkowski", "torchsparse"):
        if _last_fastest(layout, kernel):
            return weight.reshape(taps)
        return _turned(weight.reshape(*size[::-1], *taps[ndim:]), ndim)
    if layout == "RSCK" or kernel.pointwise:
        return weight.reshape(taps)
    return weight.movedim(0, -1) if layout == "KRSC" else weight.transpose(-1, -2)


def write(layout: str, taps: Tensor, kernel: Kernel) -> Tensor:
    """The weight of these taps, contiguous. The reverse of ``read``."""
    ndim = len(kernel.size)
    shape = shapes(layout, kernel)[0]
    if layout == "dense":
        return dense.to_dense(taps.flatten(0, ndim - 1), kernel.size, kernel.groups, kernel.transposed)
    if layout in ("minkowski", "torchsparse"):
        if not _last_fastest(layout, kernel):
            taps = _turned(taps, ndim)
    elif layout != "RSCK" and not kernel.pointwise:
        taps = taps.movedim(-1, 0) if layout == "KRSC" else taps.transpose(-1, -2)
    return taps.reshape(shape).clone()


def turn(taps: Tensor, axes: str) -> Tensor:
    """Taps for the other order of coordinate columns: "same" leaves them, "reversed" turns the axes round."""
    return _turned(taps, taps.ndim - 2) if axes == "reversed" else taps


def _last_fastest(layout: str, kernel: Kernel) -> bool:
    return layout == "torchsparse" and prod(kernel.size) % 2 == 0


def _turned(taps: Tensor, ndim: int) -> Tensor:
    """The first D axes in opposite order."""
    return taps.permute(*reversed(range(ndim)), *range(ndim, taps.ndim))
