# SPDX-License-Identifier: Apache-2.0
"""Which method to use where the user names none."""

from __future__ import annotations

from typing import NamedTuple

from vision3d.types.clouds import Axes


class Choice(NamedTuple):
    """A method's name, and why it."""

    method: str
    reason: str


def choose(axes: Axes, has_network: bool) -> Choice:
    """The method for clouds on these axes.

    Args:
        axes: ``lidar`` clouds come from spinning sensors, ``camera`` clouds are dense ones, as networks are trained on.
        has_network: whether a trained network is at hand.
    """
    if axes == "lidar":
        return Choice("cluster-icp", "networks trained on dense clouds do not carry over to LiDAR")
    if has_network:
        return Choice("sctn", "it was trained on dense clouds on camera axes")
    return Choice("cluster-icp", "there is no network")
