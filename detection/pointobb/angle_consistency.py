# SPDX-License-Identifier: Apache-2.0
"""The self-supervised angle loss: turning or flipping the image must turn or flip the angle (step 10).

A network that is off by the same angle everywhere has no loss under rotation. Under flips only an offset of 0 or 90
degrees has none, and 90 degrees merely swap w and h. So flips must not be switched off. But one angle for everything
answers every flip: a training that meets many of them before it knows angles stays there.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from detection.pointobb.angle_coder import wrap

BETA = 0.1


def angle_loss(first: Tensor, second: Tensor, rotation: float, flip: bool, paired: Tensor, directed: Tensor) -> Tensor:
    """Mean smooth L1 (beta 0.1) between the angle expected in the second view and the one found there.

    Args:
        first: (G,) radians in the original.
        second: (G,) radians in the view.
        rotation: of the view, radians clockwise on screen.
        flip: the view is a mirror image (and not rotated).
        paired: (G,) bool: objects in both views; the mean is over these.
        directed: (G,) bool: objects with a direction; the others' loss is 0.
    """
    difference = wrap(first + second) if flip else wrap(first + rotation - second)
    loss = functional.smooth_l1_loss(
        difference, difference.new_zeros(()).expand_as(difference), reduction="none", beta=BETA
    )
    return (loss * (paired & directed)).sum() / paired.sum().clamp_min(1)
