# SPDX-License-Identifier: Apache-2.0
"""Cars, lorries, cyclists and people made of a few solids: x forward, y left, z up, origin on the ground below."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from vision3d.readers._bodies_shapes import Solid, solid
from vision3d.types.clouds import FLOW_CLASSES

CAR, OTHER, PEDESTRIAN, CYCLIST = (
    FLOW_CLASSES.index(name) for name in ("CAR", "OTHER_VEHICLES", "PEDESTRIAN", "WHEELED_VRU")
)
LYING = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])  # a cylinder's axis along y: a wheel


@dataclass(frozen=True)
class Model:
    """The looks of a road user.

    Attributes:
        category: a row of ``FLOW_CLASSES``.
        length_m, width_m: its footprint.
    """

    solids: tuple[Solid, ...]
    category: int
    length_m: float
    width_m: float


def car(rng: Generator) -> Model:
    """A body between four wheels with a cabin on top: 3.6 to 5 m long."""
    length, width = rng.uniform(3.6, 5.0), rng.uniform(1.65, 1.95)
    belt, roof, clear = rng.uniform(0.8, 1.0), rng.uniform(1.35, 1.75), 0.25
    cabin, wheel = rng.uniform(0.42, 0.62) * length, 0.32
    back = rng.uniform(-0.12, 0.0) * length
    solids = [
        solid("box", (length / 2, width / 2, (belt - clear) / 2), (0, 0, (belt + clear) / 2)),
        solid("box", (cabin / 2, 0.45 * width, (roof - belt) / 2), (back, 0, (roof + belt) / 2)),
    ]
    for x in (-0.31 * length, 0.31 * length):
        for y in (-0.42 * width, 0.42 * width):
            solids.append(solid("cylinder", (wheel, wheel, 0.1), (x, y, wheel), LYING))
    return Model(tuple(solids), CAR, length, width)


def lorry(rng: Generator) -> Model:
    """A box on wheels behind a cab: 6 to 11 m long."""
    length, width, height = rng.uniform(6.0, 11.0), rng.uniform(2.2, 2.5), rng.uniform(2.6, 3.6)
    cab, wheel = 2.0, 0.45
    load = length - cab - 0.3
    solids = [
        solid("box", (load / 2, width / 2, (height - 0.9) / 2), (-length / 2 + load / 2, 0, (height + 0.9) / 2)),
        solid("box", (cab / 2, 0.46 * width, 0.9), (length / 2 - cab / 2, 0, 1.4)),
    ]
    for x in (-0.35 * length, length / 2 - 1.0):
        for y in (-0.42 * width, 0.42 * width):
            solids.append(solid("cylinder", (wheel, wheel, 0.15), (x, y, wheel), LYING))
    return Model(tuple(solids), OTHER, length, width)


def cyclist(rng: Generator) -> Model:
    """Two thin wheels, a frame, and a rider who leans over it."""
    tall = rng.uniform(0.9, 1.05)
    solids = (
        solid("cylinder", (0.34, 0.34, 0.02), (-0.52, 0, 0.34), LYING),
        solid("cylinder", (0.34, 0.34, 0.02), (0.52, 0, 0.34), LYING),
        solid("box", (0.5, 0.03, 0.15), (0, 0, 0.6)),
        solid("box", (0.04, 0.25, 0.04), (0.4, 0, 1.0)),
        solid("ball", (0.22, 0.2, 0.34), (-0.1, 0, 1.2 * tall)),
        solid("ball", (0.11, 0.1, 0.13), (0.08, 0, 1.62 * tall)),
        solid("cylinder", (0.14, 0.16, 0.25), (-0.05, 0, 0.75 * tall)),
    )
    return Model(solids, CYCLIST, 1.75, 0.6)


def pedestrian(rng: Generator) -> Model:
    """Two legs, a trunk and a head: 1.5 to 1.9 m tall."""
    tall = rng.uniform(0.88, 1.12)
    stride = rng.uniform(0.05, 0.22)
    solids = (
        solid("cylinder", (0.08, 0.08, 0.42 * tall), (stride, 0.1, 0.42 * tall)),
        solid("cylinder", (0.08, 0.08, 0.42 * tall), (-stride, -0.1, 0.42 * tall)),
        solid("ball", (0.16, 0.25, 0.36 * tall), (0, 0, 1.12 * tall)),
        solid("ball", (0.1, 0.09, 0.13), (0, 0, 1.58 * tall)),
    )
    return Model(solids, PEDESTRIAN, 0.6, 0.6)
