# SPDX-License-Identifier: Apache-2.0
"""Scale-sensitive consistency: which sizes answer must not depend on the pixels per metre (step 8)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def scale_consistency(first: Tensor, second: Tensor, valid: Tensor, scales: int, counts: Tensor) -> Tensor:
    """Mean over objects and scales of ``d^2 / 2``, d = 1 - cosine of the two views' scores in a scale group.

    Gradients flow into both views.

    Args:
        first: (G, N, C) probabilities of the proposals in one view, scale-major.
        second: the same proposals in the other view.
        valid: (G, N) which proposals count.
        scales: groups among the N.
        counts: (G,) which objects count.
    """
    groups = [(view * valid[..., None]).reshape(len(view), scales, -1) for view in (first, second)]
    cosine = functional.cosine_similarity(groups[0], groups[1], dim=2, eps=1e-12)
    distance = (1 - cosine).clamp_min(0)
    # A group without a valid proposal has nothing to compare.
    seen = valid.reshape(len(valid), scales, -1).any(2) & counts[:, None]
    loss = functional.smooth_l1_loss(distance, distance.new_zeros(()).expand_as(distance), reduction="none", beta=1.0)
    return (loss * seen).sum() / seen.sum().clamp_min(1)
