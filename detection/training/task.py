# SPDX-License-Identifier: Apache-2.0
"""What the training loop trains: a network, where its batches come from, and what it minimises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn


class Task(Protocol):
    """One training.

    ``net`` is the only state: what is to survive a kill is a parameter or a buffer of it. A buffer named ``progress``
    (shape (), float64) is set by the loop before every step to step / steps, the part of the run that is done.
    """

    @property
    def net(self) -> nn.Module:
        """What is trained."""
        ...

    def batch(self, step: int, rng: np.random.Generator) -> Any:
        """Data of a step, on the CPU. All randomness comes from ``rng``, which follows from seed and step."""
        ...

    def losses(self, batch: Any, step: int, steps: int) -> Mapping[str, Tensor]:
        """Named scalars, weighted already; their sum is minimised. torch's generator is seeded by seed and step."""
        ...
