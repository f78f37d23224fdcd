# SPDX-License-Identifier: Apache-2.0
"""Pairs of point clouds, the true motion between them, and the motion that a method found.

Scene flow is a vector per point of the first cloud (``source``), metres from one cloud to the next, such that
``source + flow`` lies on the second (``target``). It includes the sensor's own motion: it is expressed as if both
clouds were in one frame, which is how every data set of the field states it.

``axes`` names what x, y and z are: ``lidar`` is x forward, y left, z up; ``camera`` is x left, y up, z forward, the
axes of the prepared FlyingThings3D and KITTI clouds that the networks were trained in (not OpenCV's).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vision3d.geometry.cameras import Camera

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]
Axes = Literal["lidar", "camera"]

ARRAYS = ("points", "flow", "confidence", "dynamic", "ground", "sampled")  # of a FlowResult

# Meta-classes of the Argoverse 2 scene flow challenge; FlowTruth.classes indexes them.
FLOW_CLASSES = ("BACKGROUND", "CAR", "OTHER_VEHICLES", "PEDESTRIAN", "WHEELED_VRU")


@dataclass(frozen=True)
class CloudPair:
    """Two scans of one scene. They never carry their own truth: see :class:`FlowTruth`.

    Attributes:
        name: unique in its data set, e.g. ``000002``.
        source, target: (N, 3) and (M, 3) float32 metres, the first and the second scan, each in its sensor's frame.
        axes: see the module.
        dt_s: seconds between the scans.
        T_target_source: (4, 4) the sensor's motion where the data set knows it: takes what stands still from the
            source's frame to the target's. None where it is not known.
        source_ground, target_ground: (N,) and (M,) which points are ground where the data set says so.
        camera: pinhole that sees ``camera``-axed clouds, for errors in pixels: u = cx - fx x / z, v = cy - fy y / z.
        stamp_ns: sensor time of the source.
    """

    name: str
    source: Float32
    target: Float32
    axes: Axes = "lidar"
    dt_s: float = 0.1
    T_target_source: Float | None = None
    source_ground: Bool | None = None
    target_ground: Bool | None = None
    camera: Camera | None = None
    stamp_ns: int = 0


@dataclass(frozen=True)
class FlowTruth:
    """What is known about a pair and kept from the method; every array has a row per source point.

    Attributes:
        flow: (N, 3) float32 metres per pair, the sensor's motion included.
        valid: (N,) points that are scored; the flow of others means nothing.
        points: (N, 3) float32, the source's points: errors are reported by range and in pixels.
        axes, dt_s, camera: the pair's.
        dynamic: (N,) points that move in the world, or None where that is not known.
        ground: (N,) ground points, or None.
        classes: (N,) uint8 rows of ``FLOW_CLASSES``; 255 is in no class (excluded). None without classes.
        T_target_source: (4, 4) true motion of the sensor, or None.
    """

    flow: Float32
    valid: Bool
    points: Float32
    axes: Axes = "lidar"
    dt_s: float = 0.1
    camera: Camera | None = None
    dynamic: Bool | None = None
    ground: Bool | None = None
    classes: NDArray[np.uint8] | None = None
    T_target_source: Float | None = None


@dataclass(frozen=True)
class FlowResult:
    """The motion of every source point, or why there is none. No point is dropped: row i is source point i.

    Attributes:
        name: the pair's name.
        status: ``ok``, ``failed`` (the method found nothing) or ``bad_input`` (the pair was unusable).
        reason: one line; empty when ok.
        points: (N, 3) float32 metres, the source's points, so that a stored result can be used without its data.
        flow: (N, 3) float32 metres per pair, the sensor's motion included; None when not ok.
        confidence: (N,) float32 from 0 (no counterpart found) to 1, or None where the method has none.
        dynamic: (N,) points that move against the static world as the method sees it, or None.
        ground: (N,) points treated as ground: their flow is the sensor's motion. None when nothing was removed.
        sampled: (N,) points that the method answered itself; the others' flow was interpolated. None: all.
        T_target_source: (4, 4) the sensor's motion that was used, or None.
        axes: the pair's.
        timing_ms: stage -> milliseconds; kept out of the stored result.
        extra: small JSON-able facts of the method.
    """

    name: str
    status: Literal["ok", "failed", "bad_input"]
    reason: str = ""
    points: Float32 | None = None
    flow: Float32 | None = None
    confidence: Float32 | None = None
    dynamic: Bool | None = None
    ground: Bool | None = None
    sampled: Bool | None = None
    T_target_source: Float | None = None
    axes: Axes = "lidar"
    timing_ms: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What fits a line of text; :meth:`arrays` holds the rest."""
        return {
            "name": self.name,
            "status": self.status,
            "reason": self.reason,
            "axes": self.axes,
            "T_target_source": None if self.T_target_source is None else self.T_target_source.tolist(),
            "extra": dict(self.extra),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FlowResult:
        """The inverse of :meth:`to_json`; the arrays come by :meth:`with_arrays`."""
        T = data["T_target_source"]
        return cls(
            name=data["name"],
            status=data["status"],
            reason=data["reason"],
            axes=data["axes"],
            T_target_source=None if T is None else np.asarray(T, dtype=np.float64),
            extra=data["extra"],
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that are there, by name: the runner keeps them beside the line of :meth:`to_json`."""
        named = {name: getattr(self, name) for name in ARRAYS}
        return {name: array for name, array in named.items() if array is not None}

    def with_arrays(self, arrays: Mapping[str, Any]) -> FlowResult:
        """This result with the arrays of :meth:`arrays`."""
        return replace(self, **arrays)
