# SPDX-License-Identifier: Apache-2.0
"""Images of calibrated cameras, their true poses, and the poses that a method found.

Conventions, everywhere in the library: poses are ``T_world_cam`` (4, 4) float64, camera to world,
metres, OpenCV axes (x right, y down, z forward); pixel centres lie at integer coordinates;
quaternions are (w, x, y, z).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vision3d.geometry.cameras import Camera

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """One image of a calibrated camera. It never carries its own true pose: see :class:`FrameTruth`.

    Attributes:
        name: unique in its data set, e.g. ``seq-01/frame-000007.color.png``.
        image: (H, W, 3) uint8, RGB.
        camera: intrinsics valid for exactly this image size.
        stamp_ns: sensor time in nanoseconds; the position in the sequence where there is no clock.
        depth_m: (H, W) float32 metres registered to the image, 0 where unknown; None without depth.
        prior_T_world_cam: (4, 4) rough pose known from elsewhere (odometry, GNSS), or None.
    """

    name: str
    image: NDArray[np.uint8]
    camera: Camera
    stamp_ns: int = 0
    depth_m: NDArray[np.float32] | None = None
    prior_T_world_cam: Float | None = None


@dataclass(frozen=True)
class FrameTruth:
    """What is known about a frame and kept from the method: ``T_world_cam`` (4, 4), metres."""

    T_world_cam: Float


@dataclass(frozen=True)
class PoseResult:
    """Where a frame was taken, or why that could not be found out.

    Attributes:
        name: the frame's name.
        T_world_cam: (4, 4) camera to world, metres; None when not localized.
        status: ``ok``, ``failed`` (the method found no pose) or ``bad_input`` (the frame was unreadable).
        reason: one line; empty when ok.
        stamp_ns, camera: the frame's, so that results can be written as trajectories and COLMAP models.
        n_inliers, n_matches: correspondences that agree with the pose, and that were tried.
        covariance: (6, 6) of the pose as (rotation vector rad, translation m), left perturbation in the
            camera frame of ``T_cam_world``; None when not localized.
        timing_ms: stage name -> milliseconds. Kept out of the stored result, so that equal inputs
            give equal bytes.
        extra: small JSON-able facts of the method (inliers per iteration, prior used, ...).
        debug: arrays that only a picture needs; never stored.
    """

    name: str
    T_world_cam: Float | None
    status: Literal["ok", "failed", "bad_input"]
    reason: str = ""
    n_inliers: int = 0
    n_matches: int = 0
    covariance: Float | None = None
    stamp_ns: int = 0
    camera: Camera | None = None
    timing_ms: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    debug: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict from which :meth:`from_json` restores everything but timing and debug."""
        return {
            "name": self.name,
            "status": self.status,
            "reason": self.reason,
            "n_inliers": self.n_inliers,
            "n_matches": self.n_matches,
            "T_world_cam": None if self.T_world_cam is None else self.T_world_cam.tolist(),
            "covariance": None if self.covariance is None else self.covariance.tolist(),
            "stamp_ns": self.stamp_ns,
            "camera": None if self.camera is None else self.camera.to_json(),
            "extra": dict(self.extra),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PoseResult:
        """The inverse of :meth:`to_json`."""

        def array(key: str) -> Float | None:
            return None if data[key] is None else np.asarray(data[key], dtype=np.float64)

        return cls(
            name=data["name"],
            T_world_cam=array("T_world_cam"),
            status=data["status"],
            reason=data["reason"],
            n_inliers=data["n_inliers"],
            n_matches=data["n_matches"],
            covariance=array("covariance"),
            stamp_ns=data["stamp_ns"],
            camera=None if data["camera"] is None else Camera.from_json(data["camera"]),
            extra=data["extra"],
        )
