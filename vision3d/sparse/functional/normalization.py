# SPDX-License-Identifier: Apache-2.0
"""Normalisation with statistics over active sites. On a fully occupied grid each equals its dense namesake.

Half precision is computed in float32 and returned as it came, in training and evaluation alike.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as dense

from vision3d.sparse.backends import backend_for
from vision3d.sparse.coordinates import CoordinateSet
from vision3d.sparse.functional import arguments as check
from vision3d.sparse.functional.samples import reduce_samples, spread_samples
from vision3d.sparse.tensor import SparseTensor
from vision3d.sparse.widening import widened


def batch_norm(
    feats: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``torch.nn.functional.batch_norm`` of rows (N, C), over all sites of the batch.

    Fewer than two rows have no variance. Then the running statistics serve and stay as they are; where there are none,
    the one row is its own mean, and the result is ``bias``.
    """
    if torch.compiler.is_compiling():
        return _traced_batch_norm(feats, running_mean, running_var, weight, bias, training, momentum, eps)
    if training and feats.shape[0] < 2:
        training = False
        if running_mean is None:
            feats = feats - feats.detach()
            running_mean, running_var = feats.new_zeros(feats.shape[1]), feats.new_ones(feats.shape[1])
    return dense.batch_norm(feats, running_mean, running_var, weight, bias, training, momentum, eps)


def _traced_batch_norm(
    feats: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """``batch_norm`` without a branch on the number of rows, which a traced graph does not know."""
    rows = widened(feats)
    if training:
        count = torch.scalar_tensor(feats.shape[0], dtype=rows.dtype, device=rows.device)
        mean = rows.sum(0) / count.clamp(min=1)
        var = (rows - mean).square().sum(0) / count.clamp(min=1)
        mean, var = moving_statistics(count, mean, var, running_mean, running_var, momentum)
    elif running_mean is None or running_var is None:
        raise ValueError("batch_norm: evaluation needs running_mean and running_var")
    else:
        mean, var = running_mean, running_var
    return scale_rows(rows - mean, torch.rsqrt(var + eps), weight, bias).to(feats.dtype)


def moving_statistics(
    count: Tensor,
    mean: Tensor,
    var: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
) -> tuple[Tensor, Tensor]:
    """Updates the running statistics of a batch norm; returns the (mean, variance) to normalise with.

    Args:
        count: () number of rows; fewer than two change nothing, and the running statistics serve.
        mean: (C,) of the rows.
        var: (C,) of the rows, biased.
        running_mean: (C,) or None.
        running_var: (C,) or None; gets the unbiased variance.
        momentum: weight of the new values.
    """
    if running_mean is None or running_var is None:
        return mean, var
    enough = count > 1
    with torch.no_grad():
        step = momentum * enough.to(mean.dtype)
        old_mean, old_var = running_mean.clone(), running_var.clone()
        running_mean.add_(step * (mean - old_mean))
        running_var.add_(step * (var * count / (count - 1).clamp(min=1) - old_var))
    return torch.where(enough, mean, old_mean), torch.where(enough, var, old_var)


def scale_rows(centred: Tensor, scale: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """``centred * scale * weight + bias`` for (N, C) rows."""
    factors = scale if weight is None else scale * weight
    return centred * factors if bias is None else torch.addcmul(bias.to(centred.dtype), centred, factors)


def instance_norm(
    x: SparseTensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    name: object = "instance_norm",
) -> SparseTensor:
    """Every channel of every sample to mean 0 and variance 1 over the sample's sites, then ``* weight + bias``.

    A sample with one site gives ``bias``.

    Raises:
        TypeError: not a sparse tensor; the weight's dtype does not fit.
        ValueError: weight or bias is not (C,).
    """
    check.check_tensor(x, name)
    return group_norm(x, x.n_channels, weight, bias, eps, name)


def group_norm(
    x: SparseTensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    name: object = "group_norm",
) -> SparseTensor:
    """Every group of channels of every sample to mean 0 and variance 1 over the sample's sites and the group.

    Args:
        x: N sites with C channels.
        num_groups: divides C.
        weight: (C,) or None.
        bias: (C,) or None.
        eps: added to the variance.
        name: what errors call this call.

    Raises:
        TypeError: not a sparse tensor; the weight's dtype does not fit.
        ValueError: ``num_groups`` does not divide C; weight or bias is not (C,).
    """
    check.check_tensor(x, name)
    if num_groups < 1 or x.n_channels % num_groups:
        raise ValueError(f"{name}: num_groups must divide the {x.n_channels} channels of x, not be {num_groups}")
    check.check_affine(x, weight, bias, name)
    feats = x.sorted_feats
    out = backend_for(feats).sample_norm(feats, x.sites.sample_ptr(), num_groups, weight, bias, eps)
    return x.with_sorted(out)


def global_response_norm(
    x: SparseTensor, gamma: Tensor, beta: Tensor, eps: float = 1e-6, name: object = "global_response_norm"
) -> SparseTensor:
    """ConvNeXt V2's: ``gamma * (x * n) + beta + x``, n = a channel's L2 norm over the sample's sites, divided by the
    mean of these norms over channels.

    Args:
        x: N sites with C channels.
        gamma: (C,).
        beta: (C,).
        eps: added to the mean norm.
        name: what errors call this call.

    Raises:
        TypeError: not a sparse tensor; the dtype of gamma does not fit.
        ValueError: gamma or beta is not (C,).
    """
    check.check_tensor(x, name)
    check.check_affine(x, gamma, beta, name)
    feats = widened(x.sorted_feats)
    squares = reduce_samples(feats * feats, x.sites, "sum")
    # The square root has no slope at 0; an empty sample or a dead channel must not make one.
    some = squares > 0
    norm = torch.where(some, torch.where(some, squares, 1).sqrt(), 0)
    response = norm / (norm.mean(1, keepdim=True) + eps)
    return x.with_sorted(_scaled(feats, 1 + gamma * response, beta, x.sites).to(x.dtype))


def _scaled(feats: Tensor, scale: Tensor, shift: Tensor | None, sites: CoordinateSet) -> Tensor:
    """Features times the scale (B, C) of their sample, plus a shift (C,): everything small is done before."""
    return scale_rows(feats, spread_samples(scale.to(feats.dtype), sites), None, shift)
