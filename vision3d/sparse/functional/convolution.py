# SPDX-License-Identifier: Apache-2.0
"""Convolutions of sparse tensors. Weights are (K, Cin / groups, Cout), offsets in C order (last axis fastest).

Semantics are those of ``torch.nn.functional.conv3d`` on the zero-filled grid, looked at where the output has a site.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor
from torch.nn import functional as dense

from vision3d.sparse.backends import backend_for
from vision3d.sparse.coordinates import CoordinateSet, Ints
from vision3d.sparse.functional import arguments as check
from vision3d.sparse.functional.arguments import Sites
from vision3d.sparse.kernel_map import KernelMap
from vision3d.sparse.tensor import SparseTensor


def subm_conv(
    x: SparseTensor,
    weight: Tensor,
    kernel_size: int | Sequence[int],
    bias: Tensor | None = None,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    relu: bool = False,
    name: object = "subm_conv",
) -> SparseTensor:
    """Submanifold convolution: outputs are the sites of ``x`` and no others.

    Args:
        x: N sites with Cin channels.
        weight: (K, Cin / groups, Cout).
        kernel_size: odd, one for all axes or one per axis (z, y, x).
        bias: (Cout,).
        dilation: spacing of the kernel's taps.
        groups: channel groups; Cin: depthwise.
        relu: clamp at zero, in the convolution's own epilogue.
        name: what errors call this call.

    Raises:
        TypeError: not a sparse tensor; dtypes differ.
        ValueError: an argument does not fit; the message names it.
    """
    check.check_tensor(x, name)
    kernel_size = check.odd(check.at_least(kernel_size, x.ndim, "kernel_size", 1, name), name)
    dilation = check.at_least(dilation, x.ndim, "dilation", 1, name)
    return x.with_sorted(_on_same(x, weight, bias, kernel_size, dilation, groups, relu, name))


def sparse_conv(
    x: SparseTensor,
    weight: Tensor,
    kernel_size: int | Sequence[int],
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    out_rule: str = "dense",
    sites: Sites | None = None,
    relu: bool = False,
    name: object = "sparse_conv",
) -> SparseTensor:
    """Convolution that makes its own output sites, or fills the prescribed ``sites``.

    A kernel of one tap with stride 1 and no padding keeps the sites, and their order, as they are.

    Args:
        x: N sites with Cin channels.
        weight: (K, Cin / groups, Cout).
        kernel_size: per axis or one for all, as the next three.
        bias: (Cout,).
        stride: of the output grid, in cells of x's grid.
        padding: zeros before and behind the grid.
        dilation: spacing of the kernel's taps.
        groups: channel groups.
        out_rule: "dense": every site whose window touches a site of x; "floor": ``floor(coordinate / stride)`` only.
        sites: output set; a window without any input gives the bias.
        relu: clamp at zero, in the convolution's own epilogue.
        name: what errors call this call.

    Raises:
        TypeError: not a sparse tensor; dtypes differ.
        ValueError: an argument does not fit, or no output is left of the grid.
    """
    check.check_tensor(x, name)
    check.check_rule(out_rule, name)
    kernel_size, stride, padding, dilation = _geometry(x.ndim, kernel_size, stride, padding, dilation, name)
    if sites is None and _keeps_sites(kernel_size, stride, padding):
        return x.with_sorted(_on_same(x, weight, bias, kernel_size, dilation, groups, relu, name))
    child, kernel_map = strided_target(x, kernel_size, stride, padding, dilation, out_rule, sites, name)
    return x.derive(child, _convolve(x, weight, bias, kernel_map, groups, relu, name))


def conv_transpose(
    x: SparseTensor,
    weight: Tensor,
    kernel_size: int | Sequence[int],
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    sites: Sites | None = None,
    relu: bool = False,
    name: object = "conv_transpose",
) -> SparseTensor:
    """Transposed convolution: every input spreads to ``i * stride - padding + k * dilation``; these are the sites.

    Arguments as ``torch.nn.functional.conv_transpose3d``; ``weight`` (K, Cin / groups, Cout); ``sites`` prescribes the
    output set. ``output_padding`` only enlarges the declared spatial shape.

    Raises:
        TypeError: not a sparse tensor; dtypes differ.
        ValueError: an argument does not fit.
    """
    check.check_tensor(x, name)
    kernel_size, stride, padding, dilation = _geometry(x.ndim, kernel_size, stride, padding, dilation, name)
    extra = check.at_least(output_padding, x.ndim, "output_padding", 0, name)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation)):
        raise ValueError(f"{name}: output_padding {extra} must be below stride {stride} or dilation {dilation}")
    if sites is not None:
        return inverse_conv(x, weight, kernel_size, bias, stride, padding, dilation, groups, sites, relu, name)
    if _keeps_sites(kernel_size, stride, padding) and not any(extra):
        return x.with_sorted(_on_same(x, weight, bias, kernel_size, dilation, groups, relu, name))
    child, kernel_map = x.sites.transposed(kernel_size, stride, padding, dilation, extra)
    return x.derive(child, _convolve(x, weight, bias, kernel_map, groups, relu, name))


def inverse_conv(
    x: SparseTensor,
    weight: Tensor,
    kernel_size: int | Sequence[int],
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    like: Sites | None = None,
    relu: bool = False,
    name: object = "inverse_conv",
) -> SparseTensor:
    """Transposed convolution back onto the sites that a strided layer of the same geometry read, in their order.

    Args:
        x: N sites with Cin channels; as a rule what the partner layer made, through layers that keep sites.
        weight: (K, Cin / groups, Cout).
        kernel_size: of the partner, as the next three.
        bias: (Cout,).
        stride: see above.
        padding: see above.
        dilation: see above.
        groups: channel groups.
        like: the tensor or set to restore; None: the partner's input is looked up in the tensor's history.
        relu: clamp at zero, in the convolution's own epilogue.
        name: what errors call this call.

    Raises:
        TypeError: not a sparse tensor; dtypes differ.
        ValueError: no layer of this geometry made x's sites and ``like`` is not given; an argument does not fit.
    """
    check.check_tensor(x, name)
    kernel_size, stride, padding, dilation = _geometry(x.ndim, kernel_size, stride, padding, dilation, name)
    if like is None and _keeps_sites(kernel_size, stride, padding):
        return x.with_sorted(_on_same(x, weight, bias, kernel_size, dilation, groups, relu, name))
    target, kernel_map = inverse_target(x, kernel_size, stride, padding, dilation, like, name)
    return x.derive(target, _convolve(x, weight, bias, kernel_map, groups, relu, name))


def strided_target(
    x: SparseTensor,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    out_rule: str,
    sites: Sites | None,
    name: object,
) -> tuple[CoordinateSet, KernelMap]:
    """Output set of a strided layer, and the map onto it. Raises ``ValueError`` when ``sites`` does not fit."""
    if sites is None:
        return x.sites.strided(kernel_size, stride, padding, dilation, out_rule)
    target = check.site_set(sites, "sites", name)
    made = tuple(a * b for a, b in zip(x.stride, stride))
    shape = x.sites.conv_shape(kernel_size, stride, padding, dilation)
    check.check_sites(x, target, made, shape, "sites", name)
    return target, x.sites.map_to(target, kernel_size, stride, padding, dilation)


def inverse_target(
    x: SparseTensor, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints, like: Sites | None, name: object
) -> tuple[CoordinateSet, KernelMap]:
    """The set that an inverse layer restores, and the map onto it. Raises ``ValueError`` when there is none."""
    if like is None:
        found = x.root.partner(x.sites, kernel_size, stride, padding, dilation)
        if found is None:
            raise ValueError(
                f"{name}: no layer with kernel_size {kernel_size}, stride {stride}, padding {padding} and dilation "
                f"{dilation} made the sites of x; pass like=, the tensor whose sites are to be restored"
            )
        return found[0], found[1].transposed()
    target = check.site_set(like, "like", name)
    fine = tuple(a // b if a % b == 0 else 1 for a, b in zip(x.stride, stride))
    check.check_sites(x, target, fine, target.spatial_shape, "like", name)
    return target, target.map_to(x.sites, kernel_size, stride, padding, dilation).transposed()


def _on_same(
    x: SparseTensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_size: Ints,
    dilation: Ints,
    groups: int,
    relu: bool,
    name: object,
) -> Tensor:
    """(N, Cout) on the sites of x: a matrix product where the kernel has one tap."""
    if prod(kernel_size) > 1 or groups > 1:
        return _convolve(x, weight, bias, x.sites.subm_map(kernel_size, dilation), groups, relu, name)
    check.check_weight(x, weight, bias, 1, groups, name)
    feats, weight, bias = check.operands(x, weight, bias, name)
    out = dense.linear(feats, weight[0].t(), bias)
    return out.relu() if relu else out


def _convolve(
    x: SparseTensor, weight: Tensor, bias: Tensor | None, kernel_map: KernelMap, groups: int, relu: bool, name: object
) -> Tensor:
    check.check_weight(x, weight, bias, kernel_map.volume, groups, name)
    feats, weight, bias = check.operands(x, weight, bias, name)
    return backend_for(feats).conv(feats, weight, bias, kernel_map, groups, relu)


def _geometry(
    ndim: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    name: object,
) -> tuple[Ints, Ints, Ints, Ints]:
    return (
        check.at_least(kernel_size, ndim, "kernel_size", 1, name),
        check.at_least(stride, ndim, "stride", 1, name),
        check.at_least(padding, ndim, "padding", 0, name),
        check.at_least(dilation, ndim, "dilation", 1, name),
    )


def _keeps_sites(kernel_size: Ints, stride: Ints, padding: Ints) -> bool:
    """One tap on its own site."""
    return prod(kernel_size) == 1 and prod(stride) == 1 and not any(padding)
