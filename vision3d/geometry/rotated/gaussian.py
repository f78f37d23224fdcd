# SPDX-License-Identifier: Apache-2.0
"""Rotated boxes as Gaussians, and distances between them that have a gradient everywhere.

A box (cx, cy, w, h, theta) is the Gaussian of mean (cx, cy) whose standard deviations along its axes are ``spread``
times w and h. All functions broadcast over leading axes, so ``f(a[:, None], b[None])`` is a matrix, and take w < h too.
The closed forms below work in the frame of one of the boxes and add only positive terms: they stay right in float32
for boxes of a thousandth of a pixel, far from the origin, or a thousand times longer than wide, where the textbook's
matrix inverses and roots cancel.

Sources: GWD (Yang et al., ICML 2021), KLD (Yang et al., NeurIPS 2021), ProbIoU (Llerena et al., 2021).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

HALF_SIDE = 0.5  # spread in GWD and KLD: the box ends at one standard deviation
UNIFORM = 1 / math.sqrt(12)  # spread in ProbIoU: the variance of the uniform distribution over the box

_SMALLEST = 1e-6  # pixels; thinner boxes count as this thick, so that logarithms stay finite


def gaussians(boxes: Tensor, spread: float = HALF_SIDE) -> tuple[Tensor, Tensor]:
    """(..., 5) boxes -> means (..., 2) in pixels and covariances (..., 2, 2) in square pixels."""
    cos, sin = torch.cos(boxes[..., 4]), torch.sin(boxes[..., 4])
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    scaled = turn * (boxes[..., 2:4] * spread)[..., None, :]
    return boxes[..., :2], scaled @ scaled.transpose(-1, -2)


def gwd(a: Tensor, b: Tensor, spread: float = HALF_SIDE) -> Tensor:
    """Squared 2-Wasserstein distance between the Gaussians of boxes, square pixels.

    With s = w + h and d = w - h the trace term is ``|s_a s_b + d_a d_b exp(2i(theta_a - theta_b))|``, so no matrix
    root is needed.

    Args:
        a: (..., 5) boxes; b: (..., 5) boxes.
    """
    between = a[..., :2] - b[..., :2]
    sum_a, sum_b = (spread * (box[..., 2] + box[..., 3]) for box in (a, b))
    dif_a, dif_b = (spread * (box[..., 2] - box[..., 3]) for box in (a, b))
    same = ((sum_a - sum_b) ** 2 + (dif_a - dif_b) ** 2) / 2
    long, thin = sum_a * sum_b, dif_a * dif_b
    turned = 4 * long * thin * torch.sin(a[..., 4] - b[..., 4]) ** 2
    root = torch.sqrt(((long + thin) ** 2 - turned).clamp_min(_SMALLEST**2))
    shape = same + turned / (long + thin + root).clamp_min(_SMALLEST)
    return (between**2).sum(-1) + shape.clamp_min(0)


def kld(a: Tensor, b: Tensor, spread: float = HALF_SIDE) -> Tensor:
    """Kullback-Leibler divergence of the Gaussian of ``a`` from that of ``b``: (..., 5), (..., 5) -> (...) >= 0.

    It has no unit, does not change when both boxes are scaled together, and is not symmetric.
    """
    pair = _pair(b, a, spread)
    trace = pair.p / pair.w1**2 + pair.q / pair.h1**2
    logs = 2 * (torch.log(pair.w1) + torch.log(pair.h1) - torch.log(pair.w2) - torch.log(pair.h2))
    mean = (pair.u / pair.w1) ** 2 + (pair.v / pair.h1) ** 2
    return ((mean + trace - 2 + logs) / 2).clamp_min(0)


def bhattacharyya(a: Tensor, b: Tensor, spread: float = HALF_SIDE) -> Tensor:
    """Bhattacharyya distance between the Gaussians of boxes: (..., 5), (..., 5) -> (...) >= 0; symmetric, no unit."""
    pair = _pair(a, b, spread)
    # det(A + B) = det A + det B + (diagonal of A) . (swapped diagonal of B), in the frame where A is diagonal.
    det = (pair.w1 * pair.h1) ** 2 + (pair.w2 * pair.h2) ** 2 + pair.w1**2 * pair.q + pair.h1**2 * pair.p
    mean = ((pair.h1**2 + pair.q) * pair.u**2 + (pair.w1**2 + pair.p) * pair.v**2 - 2 * pair.r * pair.u * pair.v) / det
    logs = torch.log(det) - math.log(4)
    logs = logs - torch.log(pair.w1) - torch.log(pair.h1) - torch.log(pair.w2) - torch.log(pair.h2)
    return (mean / 4 + logs / 2).clamp_min(0)


def overlap(a: Tensor, b: Tensor, spread: float = HALF_SIDE) -> Tensor:
    """Bhattacharyya coefficient in [0, 1]: 1 for equal boxes, e^-0.5 for equal circles that touch, 0 far away."""
    return torch.exp(-bhattacharyya(a, b, spread))


def probiou(a: Tensor, b: Tensor) -> Tensor:
    """1 - the Hellinger distance, in [0, 1]. It is no IoU: for squares it does not see the angle."""
    return 1 - _root(-torch.expm1(-bhattacharyya(a, b, UNIFORM)))


def gwd_loss(found: Tensor, target: Tensor, tau: float = 1.0, normalize: bool = True) -> Tensor:
    """1 - 1 / (tau + log(1 + distance)), from 1 - 1 / tau to 1: (N, 5), (N, 5) -> (N,).

    Args:
        normalize: divide the distance by the geometric mean of the four half sides, so that an error of a tenth of
            the size costs the same for small and large boxes; otherwise it counts in pixels.
    """
    distance = _root(gwd(found, target))
    if normalize:
        sides = torch.cat([found[..., 2:4], target[..., 2:4]], -1).clamp_min(_SMALLEST)
        distance = distance / (torch.exp(torch.log(sides).mean(-1)) * HALF_SIDE)
    return 1 - 1 / (tau + torch.log1p(distance))


def kld_loss(found: Tensor, target: Tensor, tau: float = 1.0) -> Tensor:
    """1 - 1 / (tau + log(1 + KLD)): (N, 5), (N, 5) -> (N,); the same for small and large boxes."""
    return 1 - 1 / (tau + torch.log1p(kld(found, target)))


def probiou_loss(found: Tensor, target: Tensor) -> Tensor:
    """The Hellinger distance, in [0, 1]: (N, 5), (N, 5) -> (N,)."""
    return 1 - probiou(found, target)


class _Pair(NamedTuple):
    """Two Gaussians in the axes of the first: its deviations, the second's, and the second's covariance."""

    u: Tensor  # mean of the second seen from the first
    v: Tensor
    w1: Tensor
    h1: Tensor
    w2: Tensor
    h2: Tensor
    p: Tensor  # covariance [[p, r], [r, q]] of the second
    q: Tensor
    r: Tensor


def _pair(first: Tensor, second: Tensor, spread: float) -> _Pair:
    between = second[..., :2] - first[..., :2]
    cos, sin = torch.cos(first[..., 4]), torch.sin(first[..., 4])
    turn = second[..., 4] - first[..., 4]
    w1, h1, w2, h2 = (
        (box[..., side] * spread).clamp_min(_SMALLEST)
        for box, side in ((first, 2), (first, 3), (second, 2), (second, 3))
    )
    c, s = torch.cos(turn), torch.sin(turn)
    return _Pair(
        u=between[..., 0] * cos + between[..., 1] * sin,
        v=between[..., 1] * cos - between[..., 0] * sin,
        w1=w1,
        h1=h1,
        w2=w2,
        h2=h2,
        p=(w2 * c) ** 2 + (h2 * s) ** 2,
        q=(w2 * s) ** 2 + (h2 * c) ** 2,
        r=(w2**2 - h2**2) * c * s,
    )


def _root(value: Tensor) -> Tensor:
    """The square root with a finite gradient at 0."""
    return torch.sqrt(value.clamp_min(0) + 1e-12) - 1e-6
