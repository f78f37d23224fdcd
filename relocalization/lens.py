# SPDX-License-Identifier: Apache-2.0
"""Distortion that a data set does not tell, found from the map's own tracks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from relocalization.landmark_map import Lens, MapImages
from relocalization.tracks import Tracks
from vision3d.geometry.calibration import CalibrationResult, calibrate

# Below this many observations, or a change this small against its own uncertainty, the given lens is kept.
MIN_OBSERVATIONS, MIN_SIGMAS = 300, 5.0


@dataclass(frozen=True)
class LensFit:
    """A lens that explains the tracks better than the given one, and by how much."""

    lens: Lens
    found: CalibrationResult

    def summary(self) -> str:
        """One line for the user."""
        k1 = self.lens.fitted.distortion[0]
        return (
            f"the lens distorts: k1 = {k1:+.4f}; reprojection error {self.found.rms_px_before:.3f} -> "
            f"{self.found.rms_px_after:.3f} px over {self.found.n_observations} observations"
        )

    def facts(self) -> dict[str, Any]:
        """The same, JSON-able."""
        return {
            "k1": round(self.lens.fitted.distortion[0], 5),
            "rms_px_before": round(self.found.rms_px_before, 4),
            "rms_px_after": round(self.found.rms_px_after, 4),
        }


def fit_lens(images: MapImages, tracks: Tracks) -> LensFit | None:
    """One radial parameter of the camera that all images share; None where it is known, or not to be told.

    Focal length and principal point stay as given: with few images they trade against each other and against the
    distortion, and the poses were made for them.

    Args:
        images: with the cameras as given and known poses.
        tracks: of the map images, triangulated or not.
    """
    given = images.cameras[0]
    if any(c != given for c in images.cameras) or any(given.distortion) or abs(given.fx / given.fy - 1) > 5e-3:
        return None
    if len(tracks.image) < MIN_OBSERVATIONS:
        return None
    found = calibrate(
        given, tracks.uv_px, tracks.image, tracks.track, images.T_world_cam, fix_focal=True, fix_centre=True
    )
    if found is None or not found.better or found.n_observations < MIN_OBSERVATIONS:
        return None
    k1, sigma = found.camera.params[-1], float(found.sigma[-1])
    if abs(k1) < MIN_SIGMAS * sigma:
        return None
    return LensFit(Lens(given, found.camera), found)


def with_lens(images: MapImages, lens: Lens) -> MapImages:
    """The images with their cameras as the lens was fitted."""
    return replace(images, cameras=tuple(lens.of(c) for c in images.cameras))
