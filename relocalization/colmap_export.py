# SPDX-License-Identifier: Apache-2.0
"""Maps and poses as COLMAP models: landmarks become points, observations become tracks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycolmap

from relocalization.landmark_map import LandmarkMap
from vision3d.geometry import se3
from vision3d.geometry.cameras import Camera
from vision3d.types import PoseResult


def map_to_colmap(landmarks: LandmarkMap, folder: Path) -> list[Path]:
    """Write a text model (cameras.txt, images.txt, points3D.txt) into ``folder``, pixels in COLMAP's convention."""
    model = pycolmap.Reconstruction()
    camera_ids = _add_cameras(model, landmarks.images.cameras)
    tracks = landmarks.tracks
    for i, name in enumerate(landmarks.images.names):
        rows = np.flatnonzero(tracks.image == i)
        _add_image(model, i + 1, name, camera_ids[i], landmarks.images.T_world_cam[i], tracks.uv_px[rows] + 0.5)
    # Observations were given to their image in the order of their rows; the same count finds them again.
    position = np.empty(len(tracks.image), np.int64)
    for i in range(len(landmarks.images)):
        rows = np.flatnonzero(tracks.image == i)
        position[rows] = np.arange(len(rows))
    for k, point in enumerate(landmarks.points):
        track = pycolmap.Track()
        for row in range(int(tracks.start[k]), int(tracks.start[k + 1])):
            track.add_element(int(tracks.image[row]) + 1, int(position[row]))
        model.add_point3D(point, track, np.zeros(3, np.uint8))
    return _write(model, folder)


def poses_to_colmap(results: Sequence[PoseResult], cameras: Sequence[Camera], folder: Path) -> list[Path]:
    """Write the localized frames as a text model without points; frames that failed are not in it."""
    model = pycolmap.Reconstruction()
    camera_ids = _add_cameras(model, cameras)
    for i, result in enumerate(results):
        if result.T_world_cam is not None:
            _add_image(model, i + 1, result.name, camera_ids[i], result.T_world_cam, np.zeros((0, 2)))
    return _write(model, folder)


def _add_cameras(model: pycolmap.Reconstruction, cameras: Sequence[Camera]) -> list[int]:
    """Camera ids, one per entry; equal cameras share one."""
    known: dict[Camera, int] = {}
    for camera in cameras:
        if camera not in known:
            known[camera] = len(known) + 1
            colmap = camera.to_colmap()
            colmap.camera_id = known[camera]
            model.add_camera_with_trivial_rig(colmap)
    return [known[c] for c in cameras]


def _add_image(
    model: pycolmap.Reconstruction, image_id: int, name: str, camera_id: int, T_world_cam: np.ndarray, xy: np.ndarray
) -> None:
    T = se3.invert(T_world_cam)
    image = pycolmap.Image(
        name=name, points2D=[pycolmap.Point2D(p) for p in xy], camera_id=camera_id, image_id=image_id
    )
    pose = pycolmap.Rigid3d(pycolmap.Rotation3d(se3.nearest_rotation(T[:3, :3])), T[:3, 3])
    model.add_image_with_trivial_frame(image, pose)


def _write(model: pycolmap.Reconstruction, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    model.write_text(str(folder))
    return [folder / f for f in ("cameras.txt", "images.txt", "points3D.txt")]
