# SPDX-License-Identifier: Apache-2.0
"""Torch functions that may be called on sparse tensors, so that the forward code of a dense network runs unchanged.

Row-wise functions act on the features; arithmetic with tensors and ``torch.cat`` as in ``vision3d.sparse.algebra``;
permutations to channels-last and back change nothing, since features are rows already. Everything else is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as dense

from vision3d.sparse import algebra

if TYPE_CHECKING:
    from vision3d.sparse.tensor import SparseTensor

Function = Callable[..., Any]

#: Functions of each feature, or each row, by itself, and whether they know ``inplace``.
_ROWWISE: dict[Function, bool] = {
    torch.relu: False,
    torch.sigmoid: False,
    torch.tanh: False,
    torch.exp: False,
    torch.abs: False,
    torch.clamp: False,
    dense.relu: True,
    dense.relu6: True,
    dense.leaky_relu: True,
    dense.elu: True,
    dense.celu: True,
    dense.selu: True,
    dense.silu: True,
    dense.mish: True,
    dense.hardswish: True,
    dense.hardsigmoid: True,
    dense.hardtanh: True,
    dense.gelu: False,
    dense.softplus: False,
    dense.softsign: False,
    dense.logsigmoid: False,
    dense.tanh: False,
    dense.sigmoid: False,
    dense.prelu: False,
    dense.dropout: True,
    dense.linear: False,
    dense.layer_norm: False,
}

_ARITHMETIC: dict[Function, tuple[Function, str]] = {
    torch.add: (torch.add, "+"),
    torch.mul: (torch.mul, "*"),
    torch.sub: (torch.sub, "-"),
    torch.div: (torch.div, "/"),
    Tensor.add: (torch.add, "+"),
    Tensor.mul: (torch.mul, "*"),
    Tensor.sub: (torch.sub, "-"),
    Tensor.div: (torch.div, "/"),
    Tensor.__add__: (torch.add, "+"),
    Tensor.__mul__: (torch.mul, "*"),
}


def call(function: Function, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What ``SparseTensor.__torch_function__`` does.

    Raises:
        TypeError: the function has no meaning for sparse tensors, or none that is known here.
        ValueError: as the function that takes its place.
    """
    from vision3d.sparse.tensor import SparseTensor

    if function in _ROWWISE and isinstance(args[0] if args else None, SparseTensor):
        if _ROWWISE[function] and kwargs.get("inplace"):
            kwargs = {**kwargs, "inplace": False}
        return args[0].map(lambda feats: function(feats, *args[1:], **kwargs))
    if function in _ARITHMETIC and len(args) == 2 and not kwargs:
        return _arithmetic(args[0], args[1], *_ARITHMETIC[function])
    if function in (torch.cat, torch.concat, torch.concatenate):
        return algebra.cat(args[0], *args[1:], **kwargs)
    if function is torch.permute and len(args) == 2:
        return permute(args[0], args[1])
    if function is torch.mean and isinstance(args[0], SparseTensor):
        return mean(*args, **kwargs)
    name = getattr(function, "__name__", str(function))
    raise TypeError(f"torch's {name} is not defined for a SparseTensor; use a layer of vision3d.sparse, or x.map()")


def permute(x: SparseTensor, dims: Sequence[int]) -> SparseTensor:
    """Dense (B, C, ...) to channels-last or back: ``x`` itself. Raises ``ValueError`` for any other permutation."""
    axes = x.ndim
    last = (0, *range(2, axes + 2), 1)
    first = (0, axes + 1, *range(1, axes + 1))
    if tuple(d % (axes + 2) for d in dims) not in (last, first):
        raise ValueError(
            f"a SparseTensor with {axes} axes can be permuted by {last} and {first} only, not {tuple(dims)}"
        )
    return x


def mean(x: SparseTensor, dim: Sequence[int], keepdim: bool = False) -> Tensor:
    """(B, C), or (B, C, 1, ...): mean over the active sites. Raises ``ValueError`` unless ``dim`` is all axes."""
    from vision3d.sparse.functional.pooling import global_pool

    axes = x.ndim
    if sorted(d % (axes + 2) for d in dim) != list(range(2, axes + 2)):
        raise ValueError(f"a SparseTensor with {axes} axes has a mean over all of {tuple(range(2, axes + 2))} only")
    pooled = global_pool(x)
    return pooled.view(*pooled.shape, *(1,) * axes) if keepdim else pooled


def _arithmetic(
    x: SparseTensor | Tensor | float, other: SparseTensor | Tensor | float, operation: Function, sign: str
) -> SparseTensor:
    from vision3d.sparse.tensor import SparseTensor

    if isinstance(x, SparseTensor):
        return algebra.elementwise(x, other, operation, sign)
    assert isinstance(other, SparseTensor)
    return algebra.elementwise(other, x, lambda feats, value: operation(value, feats), sign)
