# SPDX-License-Identifier: Apache-2.0
"""Which method to use where the user names none."""

from __future__ import annotations

from typing import NamedTuple

from vision3d.types.clouds import Axes


class Choice(NamedTuple):
    """A method's name, and why it."""

    method: str
    reason: str


def choose(axes: Axes) -> Choice:
    """The method that measured best on real clouds of this kind (docs/RESULTS.md, three pairs).

    Args:
        axes: ``lidar`` clouds come from spinning sensors, ``camera`` clouds are dense ones from stereo or depth.
    """
    if axes == "lidar":
        return Choice("cluster-icp", "it beat every other method on moving points of real LiDAR scans")
    return Choice("cluster-icp", "it beat the networks at hand on real stereo clouds, even thinned to 1024 points")
