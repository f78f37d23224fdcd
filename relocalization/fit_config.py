# SPDX-License-Identifier: Apache-2.0
"""Options of fitting descriptor fields. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vision3d.errors import ConfigError
from vision3d.voxels.marching import Marching

BoxAxes = Literal["world", "view"]
FitMethod = Literal["ridge", "polish", "paper"]


@dataclass(frozen=True)
class FitConfig:
    """How the descriptor field of a landmark is fitted to what its views observed.

    Attributes:
        method: ``ridge`` solves for the node values in closed form under one fixed density; ``polish`` goes on from
            there with Adam on density and values, and ends with another solve; ``paper`` is FaVoR's recipe.
        resolution: nodes along one side of a box; 1 stores one direction-free descriptor.
        axes: ``world`` aligns every box with the world, as the paper does; ``view`` turns it towards the mean direction
            it was seen from and stretches it along that direction, so that its nodes tell apart smaller angles.
        stretch: length over width of a ``view`` box: its nodes then stand for 0 and ``atan(1 / stretch)`` off
            the mean direction, and for everything beyond.
        density: raw density at every node of ``ridge`` and at the start of ``polish``. At 10 a box is opaque, so a ray
            reads the node values where it enters, which depends most on its direction; at the paper's 0 a box is
            nearly transparent and a ray reads the mean along its chord.
        ridge: pull of the node values towards the landmark's mean descriptor, in units of one view;
            0 chooses it for the whole map by leaving out one view at a time.
        patch_radius: neighbouring pixels around an observation whose rays are fitted too; 0 fits its own ray only,
            the paper 3. Needs features with a dense map.
        patch_stride: distance between those pixels.
        steps: Adam steps of ``polish`` (``paper`` makes 2000).
        lr_density, lr_values: Adam's learning rates.
        cosine_weight, entropy_weight: weights of ``1 - cos`` and of the entropy of the light behind the box, beside
            the mean squared error.
        tv_weight: strength of ``paper``'s total variation in the last quarter of its steps.
        rays_per_step: rays drawn per landmark and step by ``paper``.
        batch: landmarks that are fitted at once.
        marching: how rays are sampled; the map must be rendered with the same.
    """

    method: FitMethod = "ridge"
    resolution: int = 3
    axes: BoxAxes = "view"
    stretch: float = 8.0
    density: float = 10.0
    ridge: float = 0.0
    patch_radius: int = 0
    patch_stride: int = 1
    steps: int = 300
    lr_density: float = 0.1
    lr_values: float = 0.01
    cosine_weight: float = 0.2
    entropy_weight: float = 0.1
    tv_weight: float = 0.1
    rays_per_step: int = 1024
    batch: int = 64
    marching: Marching = field(default_factory=Marching)

    def __post_init__(self) -> None:
        ranges = {
            "resolution": (1, 9),
            "stretch": (1, 100),
            "density": (-20, 50),
            "ridge": (0, 1e6),
            "patch_radius": (0, 16),
            "patch_stride": (1, 16),
            "steps": (1, 100_000),
            "lr_density": (0, 10),
            "lr_values": (0, 10),
            "cosine_weight": (0, 100),
            "entropy_weight": (0, 100),
            "tv_weight": (0, 100),
            "rays_per_step": (1, 100_000),
            "batch": (1, 100_000),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"fit.{name} is {value}: must lie between {low:g} and {high:g}")
        if self.axes not in ("world", "view"):
            raise ConfigError(f"fit.axes is {self.axes!r}: must be world or view")
        if self.method not in ("ridge", "polish", "paper"):
            raise ConfigError(f"fit.method is {self.method!r}: must be ridge, polish or paper")
