# SPDX-License-Identifier: Apache-2.0
"""Checks of what layers and functions are given. Messages name the layer, the argument and the remedy.

``name`` is what an error calls the caller: a string, or the module itself, whose repr is taken only when needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vision3d.sparse.coordinates import CoordinateSet, Ints, expand
from vision3d.sparse.tensor import SparseTensor

INT32 = torch.iinfo(torch.int32)

#: What a call may name as a set of sites.
Sites = SparseTensor | CoordinateSet


def at_least(value: int | Sequence[int], ndim: int, argument: str, low: int, name: object) -> Ints:
    """One integer per axis, none below ``low``.

    Raises:
        TypeError: a value is not an integer.
        ValueError: the number of values is not D, or one is too small, or beyond int32 as coordinates are.
    """
    values = expand(value, ndim, argument)
    if any(v < low for v in values):
        raise ValueError(f"{name}: {argument} must be at least {low} on every axis, not {value}")
    if any(v > INT32.max for v in values):
        raise ValueError(f"{name}: {argument} must be below 2^31 on every axis, not {value}")
    return values


def odd(kernel_size: Ints, name: object) -> Ints:
    """The kernel size of a submanifold layer. Raises ``ValueError`` when one is even."""
    if any(k % 2 == 0 for k in kernel_size):
        raise ValueError(
            f"{name}: a submanifold convolution needs an odd kernel_size on every axis, not {kernel_size}; "
            "use SparseConv for an even one"
        )
    return kernel_size


def check_rule(out_rule: str, name: object) -> str:
    """Raises ``ValueError`` for an unknown rule of output sites."""
    if out_rule not in ("dense", "floor"):
        raise ValueError(f'{name}: out_rule must be "dense" or "floor", not {out_rule!r}')
    return out_rule


def check_tensor(x: SparseTensor, name: object, ndim: int | None = None, channels: int | None = None) -> None:
    """The input of a layer.

    Raises:
        TypeError: not a sparse tensor.
        ValueError: D or the number of channels is not the layer's.
    """
    if not isinstance(x, SparseTensor):
        remedy = "; SparseTensor.from_dense makes one from a grid" if isinstance(x, Tensor) else ""
        raise TypeError(f"{name}: x must be a SparseTensor, not {type(x).__name__}{remedy}")
    if ndim is not None and x.ndim != ndim:
        raise ValueError(f"{name}: x has {x.ndim} spatial axes, the layer {ndim}; use its {x.ndim}d form")
    if channels is not None and x.n_channels != channels:
        raise ValueError(f"{name}: x has {x.n_channels} channels, the layer takes {channels}")


def check_weight(x: SparseTensor, weight: Tensor, bias: Tensor | None, volume: int, groups: int, name: object) -> None:
    """The weight (K, Cin / groups, Cout) and bias (Cout,) of a convolution of ``x``.

    Raises:
        ValueError: a shape or device does not fit.
    """
    if groups < 1 or x.n_channels % groups:
        raise ValueError(f"{name}: groups must divide the {x.n_channels} channels of x, not be {groups}")
    if weight.ndim != 3 or weight.shape[0] != volume or weight.shape[1] * groups != x.n_channels:
        raise ValueError(
            f"{name}: weight must be (K, Cin / groups, Cout) = ({volume}, {x.n_channels // groups}, Cout) for x with "
            f"{x.n_channels} channels, not {tuple(weight.shape)}"
        )
    if weight.shape[2] % groups:
        raise ValueError(f"{name}: groups={groups} must divide the {weight.shape[2]} output channels")
    if bias is not None and tuple(bias.shape) != (weight.shape[2],):
        raise ValueError(f"{name}: bias must be ({weight.shape[2]},), not {tuple(bias.shape)}")
    if weight.device != x.device or (bias is not None and bias.device != x.device):
        raise ValueError(f"{name}: x is on {x.device}, the weight on {weight.device}; move one with .to()")


def check_affine(x: SparseTensor, weight: Tensor | None, bias: Tensor | None, name: object) -> None:
    """Scale and shift (C,) of a norm of ``x``; float32 fits half precision as well.

    Raises:
        TypeError: the dtype does not fit.
        ValueError: a shape or device does not fit.
    """
    fits = (x.dtype, torch.float32) if x.dtype in (torch.float16, torch.bfloat16) else (x.dtype,)
    for argument, value in (("weight", weight), ("bias", bias)):
        if value is None:
            continue
        if tuple(value.shape) != (x.n_channels,):
            raise ValueError(f"{name}: {argument} must be ({x.n_channels},) for x, not {tuple(value.shape)}")
        if value.device != x.device:
            raise ValueError(f"{name}: x is on {x.device}, {argument} on {value.device}; move one with .to()")
        if value.dtype not in fits:
            raise TypeError(f"{name}: x is {x.dtype}, {argument} {value.dtype}; convert one with .to()")


def operands(
    x: SparseTensor, weight: Tensor, bias: Tensor | None, name: object
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Features, weight and bias in the dtype a dense convolution would compute in: the autocast dtype where autocast
    is on (float64 is left alone), else their own.

    Raises:
        TypeError: the dtypes differ.
    """
    feats = x.sorted_feats
    device = feats.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        feats = _cast(feats, dtype)
        weight = _cast(weight, dtype)
        bias = None if bias is None else _cast(bias, dtype)
    if feats.dtype != weight.dtype or (bias is not None and bias.dtype != feats.dtype):
        theirs = weight.dtype if bias is None or bias.dtype == weight.dtype else bias.dtype
        raise TypeError(
            f"{name}: x is {feats.dtype}, weight and bias {theirs}; convert one with .to(), or use autocast"
        )
    return feats, weight, bias


def site_set(sites: Sites, argument: str, name: object) -> CoordinateSet:
    """The coordinate set of a tensor, or a set itself. Raises ``TypeError`` for anything else."""
    if isinstance(sites, SparseTensor):
        return sites.sites
    if not isinstance(sites, CoordinateSet):
        raise TypeError(f"{name}: {argument} must be a SparseTensor or a CoordinateSet, not {type(sites).__name__}")
    return sites


def check_sites(
    x: SparseTensor, sites: CoordinateSet, stride: Ints, shape: Ints | None, argument: str, name: object
) -> None:
    """A prescribed output set of a layer on ``x`` whose outputs have ``stride`` and extent ``shape``.

    Raises:
        ValueError: it does not fit; the message names what differs.
    """
    for what, its, ours in (
        ("spatial axes", sites.ndim, x.ndim),
        ("device", sites.coords.device, x.device),
        ("batch_size", sites.batch_size, x.batch_size),
        ("stride", sites.stride, stride),
        ("spatial_shape", sites.spatial_shape or shape, shape or sites.spatial_shape),
    ):
        if its != ours:
            raise ValueError(f"{name}: {argument} has {what} {its}, the layer's output has {ours}")


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)
