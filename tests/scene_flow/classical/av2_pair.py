# SPDX-License-Identifier: Apache-2.0
"""The real Argoverse 2 pair, read with pyarrow alone, so that a proof does not lean on the project's reader."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision3d.geometry.se3 import from_rt, invert, quat_to_rotation, transform

LOG = "7fab2350-7eaf-3b7e-a39d-6937a4c1bede"
STAMPS = (315966265259836000, 315966265360032000)


@dataclass(frozen=True)
class Av2Pair:
    """Two sweeps in their vehicle frames, and what is known of the first one's points.

    ``flow`` includes the sensor's motion; ``residual`` is what is left of it in the target's frame once ``compensated``
    (the source under ``T_target_source``) has taken that away. ``classes`` are rows of FLOW_CLASSES + 1, 0 background.
    """

    source: NDArray[np.float32]
    target: NDArray[np.float32]
    T_target_source: NDArray[np.float64]
    flow: NDArray[np.float32]
    residual: NDArray[np.float64]
    dynamic: NDArray[np.bool_]
    ground: NDArray[np.bool_]
    classes: NDArray[np.uint8]

    @property
    def compensated(self) -> NDArray[np.float32]:
        return transform(self.T_target_source, self.source).astype(np.float32)


def load_av2_pair(shared_data: Path) -> Av2Pair:
    """The pair of ``av2_sensor_val`` below the folder of shared data."""
    log = shared_data / "av2_sensor_val" / "val" / LOG
    source, target = (_columns(log / "sensors" / "lidar" / f"{s}.feather", "x", "y", "z") for s in STAMPS)
    poses = _table(log / "city_SE3_egovehicle.feather")
    T_city_ego = [_pose(poses, int(np.flatnonzero(poses["timestamp_ns"] == stamp)[0])) for stamp in STAMPS]
    T = invert(T_city_ego[1]) @ T_city_ego[0]
    labels = _table(log / "flow_labels.feather")
    flow = np.stack([labels[f"flow_t{axis}_m"] for axis in "xyz"], axis=1).astype(np.float32)
    return Av2Pair(
        source=source,
        target=target,
        T_target_source=T,
        flow=flow,
        residual=source + flow.astype(np.float64) - transform(T, source),
        dynamic=labels["dynamic"].astype(bool),
        ground=labels["is_ground_0"].astype(bool),
        classes=labels["classes"].astype(np.uint8),
    )


def _table(path: Path) -> dict[str, NDArray[Any]]:
    from pyarrow import feather

    table = feather.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def _columns(path: Path, *names: str) -> NDArray[np.float32]:
    table = _table(path)
    return np.stack([table[name] for name in names], axis=1).astype(np.float32)


def _pose(table: dict[str, NDArray[Any]], row: int) -> NDArray[np.float64]:
    quaternion = [table[name][row] for name in ("qw", "qx", "qy", "qz")]
    return from_rt(quat_to_rotation(quaternion), [table[f"t{axis}_m"][row] for axis in "xyz"])
