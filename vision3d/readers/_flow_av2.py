# SPDX-License-Identifier: Apache-2.0
"""Argoverse 2: its categories and their meta-classes, and the flow that its annotated boxes imply.

A point inside a box moves as the box's track does between the two sweeps; every other point stands still, so that its
flow is the sensor's motion. This is how the data set's own tools make flow labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision3d.geometry.se3 import invert, transform
from vision3d.readers._feather import QUATERNION, TRANSLATION, poses_of, read_feather
from vision3d.types.clouds import FLOW_CLASSES

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

# Label files hold positions in this list plus one; 0 is no object.
CATEGORIES = (
    "ANIMAL",
    "ARTICULATED_BUS",
    "BICYCLE",
    "BICYCLIST",
    "BOLLARD",
    "BOX_TRUCK",
    "BUS",
    "CONSTRUCTION_BARREL",
    "CONSTRUCTION_CONE",
    "DOG",
    "LARGE_VEHICLE",
    "MESSAGE_BOARD_TRAILER",
    "MOBILE_PEDESTRIAN_CROSSING_SIGN",
    "MOTORCYCLE",
    "MOTORCYCLIST",
    "OFFICIAL_SIGNALER",
    "PEDESTRIAN",
    "RAILED_VEHICLE",
    "REGULAR_VEHICLE",
    "SCHOOL_BUS",
    "SIGN",
    "STOP_SIGN",
    "STROLLER",
    "TRAFFIC_LIGHT_TRAILER",
    "TRUCK",
    "TRUCK_CAB",
    "VEHICULAR_TRAILER",
    "WHEELCHAIR",
    "WHEELED_DEVICE",
    "WHEELED_RIDER",
)
# Meta-classes of the 2024 challenge. Signs (stop signs on school buses move oddly) and animals are in none.
META = {
    "CAR": ("REGULAR_VEHICLE",),
    "OTHER_VEHICLES": (
        "ARTICULATED_BUS",
        "BOX_TRUCK",
        "BUS",
        "LARGE_VEHICLE",
        "RAILED_VEHICLE",
        "SCHOOL_BUS",
        "TRUCK",
        "TRUCK_CAB",
        "VEHICULAR_TRAILER",
    ),
    "PEDESTRIAN": ("OFFICIAL_SIGNALER", "PEDESTRIAN", "STROLLER", "WHEELCHAIR"),
    "WHEELED_VRU": ("BICYCLE", "BICYCLIST", "MOTORCYCLE", "MOTORCYCLIST", "WHEELED_DEVICE", "WHEELED_RIDER"),
}
NO_CLASS = 255
# Boxes are drawn tightly: length and width grow by this much, height does not.
BOX_MARGIN_M = 0.2
MOVING_M_PER_S = 0.5


def meta_classes(indices: NDArray[np.integer]) -> NDArray[np.uint8]:
    """(N,) rows of ``FLOW_CLASSES`` for category indices 0 to 30; 255 for signs, animals and unknown numbers."""
    table = np.full(256, NO_CLASS, dtype=np.uint8)
    table[0] = FLOW_CLASSES.index("BACKGROUND")
    for meta, names in META.items():
        for name in names:
            table[CATEGORIES.index(name) + 1] = FLOW_CLASSES.index(meta)
    return table[np.clip(indices, 0, 255)]


@dataclass(frozen=True)
class Boxes:
    """Annotated boxes of a log, in the file's order, each in the ego vehicle's frame at its own time.

    Attributes:
        stamp_ns: (N,) sweep that the box belongs to.
        track: (N,) names of the objects.
        category: (N,) indices as in label files.
        size_m: (N, 3) length, width, height.
        T_ego_box: (N, 4, 4).
    """

    stamp_ns: NDArray[np.int64]
    track: NDArray[np.object_]
    category: NDArray[np.uint8]
    size_m: Float
    T_ego_box: Float


def read_boxes(path: Path) -> Boxes:
    """The boxes of an ``annotations.feather``; raises DataError naming the file."""
    sizes = ("length_m", "width_m", "height_m")
    table = read_feather(path, ("timestamp_ns", "track_uuid", "category", *sizes, *QUATERNION, *TRANSLATION))
    index = {name: i + 1 for i, name in enumerate(CATEGORIES)}
    category = np.array([index.get(str(name), NO_CLASS) for name in table["category"]], dtype=np.uint8)
    size = np.stack([table[name].astype(np.float64) for name in sizes], axis=1)
    return Boxes(table["timestamp_ns"].astype(np.int64), table["track_uuid"], category, size, poses_of(table))


def box_flow(
    points: NDArray[np.float32], boxes: Boxes, stamps_ns: tuple[int, int], T_target_source: Float
) -> tuple[NDArray[np.float32], Bool, NDArray[np.uint8]]:
    """Flow (N, 3) float32, validity (N,) and category indices (N,) of points (N, 3) in the ego frame.

    Where boxes overlap the later one in the file decides. Points in a box whose track is not annotated in the second
    sweep are not valid: how they moved is not known.
    """
    p = points.astype(np.float64)
    flow = transform(T_target_source, p) - p
    valid = np.ones(len(p), dtype=bool)
    category = np.zeros(len(p), dtype=np.uint8)
    later = {boxes.track[i]: i for i in np.flatnonzero(boxes.stamp_ns == stamps_ns[1])}
    for i in np.flatnonzero(boxes.stamp_ns == stamps_ns[0]):
        half = 0.5 * (boxes.size_m[i] + [BOX_MARGIN_M, BOX_MARGIN_M, 0.0])
        # Cheap first: the sphere around the box. A sweep has a hundred thousand points, and a hundred boxes.
        near = np.flatnonzero(((p - boxes.T_ego_box[i, :3, 3]) ** 2).sum(axis=1) <= (half**2).sum())
        inside = near[(np.abs(transform(invert(boxes.T_ego_box[i]), p[near])) <= half).all(axis=1)]
        category[inside] = boxes.category[i]
        j = later.get(boxes.track[i])
        valid[inside] = j is not None
        if j is not None:
            motion = boxes.T_ego_box[j] @ invert(boxes.T_ego_box[i])
            flow[inside] = transform(motion, p[inside]) - p[inside]
    return flow.astype(np.float32), valid, category


def moving(
    points: NDArray[np.float32], flow: NDArray[np.float32], T_target_source: Float, dt_s: float
) -> NDArray[np.bool_]:
    """(N,) points whose flow differs from the sensor's motion by 0.5 m/s or more (0.05 m in a tenth of a second)."""
    p = points.astype(np.float64)
    residual = np.linalg.norm(flow - (transform(T_target_source, p) - p), axis=1)
    return residual >= MOVING_M_PER_S * dt_s
