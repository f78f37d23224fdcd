# SPDX-License-Identifier: Apache-2.0
"""Means over pairs of means over points: a scene counts once, however many points it has."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vision3d.types import Metric


class PairMeans:
    """Average inside a pair first, then over pairs with equal weight (card sctn.md). Infinite values stay infinite."""

    def __init__(self) -> None:
        self._sum = 0.0
        self.pairs = 0

    def add(self, value: float) -> None:
        """Count a pair by its own mean."""
        self._sum += value
        self.pairs += 1

    def add_points(self, values: NDArray[np.float64] | NDArray[np.bool_]) -> None:
        """Count a pair by its points' values (N,); a pair without points is left out."""
        if len(values):
            self.add(float(values.mean()))

    @property
    def value(self) -> float:
        """The mean over the pairs.

        Raises:
            ValueError: no pair was counted.
        """
        if not self.pairs:
            raise ValueError("the mean of no pair is undefined")
        return self._sum / self.pairs

    def metric(self, name: str, unit: str, better: Literal["higher", "lower"]) -> list[Metric]:
        """The mean as one metric with the number of pairs; none where no pair was counted."""
        return [Metric(name, self.value, unit, better, self.pairs)] if self.pairs else []
