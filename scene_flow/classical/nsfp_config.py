# SPDX-License-Identifier: Apache-2.0
"""Options of the network that is fitted to each pair. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vision3d.errors import ConfigError, check_ranges


@dataclass(frozen=True)
class NsfpConfig:
    """A small network from position to flow, fitted to one pair and thrown away.

    Attributes:
        variant: ``nsfp`` compares the moved cloud with the second one both ways, and carries it back again by a second
            network; ``fast`` looks up how far each moved point is from the second cloud.
        points: points drawn from each cloud to fit to (``fast``: from the first one only); 0 takes all. What stands
            still is dragged along where they are few: on one computed street (the first of ``bodies:street?points=0``)
            2048 left a mean error of 0.16 m, 4096 one of 0.06 m. Time grows with them.
        iterations: most steps of the optimiser. 500 with 4096 points took 51 s of one core.
        patience: stop after this many steps without a gain of 0.0001 in the loss; 0 takes 100 for ``nsfp`` and 30 for
            ``fast``, the longer ones that OpenSceneFlow gives; on two pairs of ``bodies:boxes`` each did better than
            the other.
        learning_rate: of Adam.
        truncate_m2: ``nsfp``: squared distances count no more than this, so that what only one scan sees pulls at
            nothing. Square metres.
        cell_m: ``fast``: spacing of the grid of distances. A coarser one blurs thin things into their neighbours.
        field_mb: ``fast``: most memory for the grid while it is made, 21 bytes a cell; where the clouds' box needs
            more, the cells become larger and the result says so (``cell_m`` in ``extra``).
    """

    variant: Literal["nsfp", "fast"] = "nsfp"
    points: int = 4096
    iterations: int = 500
    patience: int = 0
    learning_rate: float = 8e-3
    truncate_m2: float = 2.0
    cell_m: float = 0.1
    field_mb: int = 1024

    def __post_init__(self) -> None:
        if self.variant not in ("nsfp", "fast"):
            raise ConfigError(f"nsfp.variant is {self.variant!r}: must be one of nsfp, fast")
        check_ranges("nsfp", self, points=(0, 10**7), iterations=(1, 10**6), patience=(0, 10**6), field_mb=(1, 10**6))
        check_ranges("nsfp", self, learning_rate=(1e-6, 1), truncate_m2=(1e-4, 1e4), cell_m=(0.001, 100))

    @property
    def steps_without_gain(self) -> int:
        """``patience``, or what the variant takes for 0."""
        return self.patience or (100 if self.variant == "nsfp" else 30)
