# SPDX-License-Identifier: Apache-2.0
"""What a run shows: numbers, curves, scenes and clouds to be turned around, for vision3d.view to draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One number of a table. ``value`` may be infinite (a failure's error); never NaN.

    ``n`` counts every sample that the number stands for, failures included.
    """

    name: str
    value: float
    unit: str
    better: Literal["higher", "lower"]
    n: int


@dataclass(frozen=True)
class Chart:
    """A line chart to be drawn by vision3d.view: series name -> (x values, y values)."""

    name: str
    title: str
    x_label: str
    y_label: str
    series: Mapping[str, tuple[Float, Float]]
    x_log: bool = False


@dataclass(frozen=True)
class Scene:
    """Points and camera trajectories of one world frame, to be drawn from above and from the side.

    Attributes:
        points: (N, 3) world, metres.  colors: (N, 3) uint8 RGB or None.
        trajectories: name -> (M, 4, 4) ``T_world_cam``.
        up: (3,) unit vector that points up in the world.
    """

    name: str
    title: str
    points: Float
    colors: NDArray[np.uint8] | None
    trajectories: Mapping[str, Float]
    up: Float


@dataclass(frozen=True)
class CloudLayer:
    """Points of one meaning in a :class:`CloudView`.

    Attributes:
        points: (N, 3) float32, metres.
        colors: (N, 3) uint8 RGB, or (3,) for all points alike.
    """

    name: str
    points: NDArray[np.float32]
    colors: NDArray[np.uint8]


@dataclass(frozen=True)
class CloudView:
    """Point clouds of one sample, to be turned around in the report: layers can be switched on and off.

    Attributes:
        up: (3,) unit vector that points up.
    """

    title: str
    layers: tuple[CloudLayer, ...]
    up: Float


@dataclass(frozen=True)
class Table:
    """A table of a whole run: the first cell of a row names it, numbers are right-aligned.

    Attributes:
        name: of its file.
        note: one sentence below it, or empty.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Exhibit:
    """What a pipeline has to show of a whole run; vision3d.view turns it into pictures.

    Attributes:
        per_sample: sample name -> column -> value: what only the truth tells (errors, say), for a table of
            all samples. A column's name ends in its unit (``translation_cm``); failures are infinite.
    """

    charts: tuple[Chart, ...] = ()
    scenes: tuple[Scene, ...] = ()
    tables: tuple[Table, ...] = ()
    per_sample: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
