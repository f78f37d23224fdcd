# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from simulated_map import CAMERA, Room

from relocalization.colmap_export import map_to_colmap, poses_to_colmap
from relocalization.landmark_map import LandmarkMap, MapImages
from vision3d.geometry import se3
from vision3d.geometry.cameras import Camera
from vision3d.types import PoseResult


@pytest.fixture(scope="module")
def landmarks() -> LandmarkMap:
    """With two cameras, one of them distorted."""
    made = Room.build(per_wall=40, per_side=4).landmark_map()
    bent = Camera("SIMPLE_RADIAL", 320, 240, (250.0, 159.5, 119.5, -0.03))
    cameras = tuple(bent if i % 3 == 0 else CAMERA for i in range(len(made.images)))
    return replace(made, images=MapImages(made.images.names, cameras, made.images.T_world_cam))


def pose_of(image: pycolmap.Image) -> np.ndarray:
    T_cam_world = np.eye(4)
    T_cam_world[:3] = image.cam_from_world().matrix()
    return se3.invert(T_cam_world)


def test_pycolmap_reads_the_map_back(landmarks: LandmarkMap, tmp_path: Path) -> None:
    files = map_to_colmap(landmarks, tmp_path / "new" / "model")
    assert [f.name for f in files] == ["cameras.txt", "images.txt", "points3D.txt"]
    assert all(f.is_file() for f in files)
    model = pycolmap.Reconstruction(str(tmp_path / "new" / "model"))
    assert (len(model.cameras), len(model.images), len(model.points3D)) == (2, len(landmarks.images), len(landmarks))
    by_name = {image.name: image for image in model.images.values()}
    for i, name in enumerate(landmarks.images.names):
        image = by_name[name]
        assert np.abs(pose_of(image) - landmarks.images.T_world_cam[i]).max() < 1e-9
        read = Camera.from_colmap(model.cameras[image.camera_id])
        assert read.model == landmarks.images.cameras[i].model
        assert np.allclose(read.params, landmarks.images.cameras[i].params)
        assert len(image.points2D) == (landmarks.tracks.image == i).sum()


def test_tracks_and_the_half_pixel_come_back(landmarks: LandmarkMap, tmp_path: Path) -> None:
    map_to_colmap(landmarks, tmp_path)
    model = pycolmap.Reconstruction(str(tmp_path))
    position = {name: i for i, name in enumerate(landmarks.images.names)}
    points = {tuple(np.round(p, 6)): k for k, p in enumerate(landmarks.points.tolist())}
    seen = set()
    for point in model.points3D.values():
        k = points[tuple(np.round(point.xyz, 6))]
        seen.add(k)
        own = slice(landmarks.tracks.start[k], landmarks.tracks.start[k + 1])
        assert point.track.length() == own.stop - own.start
        wanted = dict(zip(landmarks.tracks.image[own].tolist(), landmarks.tracks.uv_px[own]))
        for element in point.track.elements:
            image = model.images[element.image_id]
            xy = image.points2D[element.point2D_idx].xy
            # COLMAP has the centre of the first pixel at (0.5, 0.5)
            assert np.allclose(xy, wanted[position[image.name]] + 0.5, atol=1e-6)
    assert seen == set(range(len(landmarks)))


def test_colmap_projects_the_points_where_they_were_observed(tmp_path: Path) -> None:
    """The observations are exact, so COLMAP's own camera model must reproduce them: nothing is half a pixel off."""
    map_to_colmap(Room.build(per_wall=40, per_side=4).landmark_map(), tmp_path)
    model = pycolmap.Reconstruction(str(tmp_path))
    for point in model.points3D.values():
        for element in point.track.elements:
            image = model.images[element.image_id]
            projected = model.cameras[image.camera_id].img_from_cam(image.cam_from_world() * point.xyz)
            assert np.allclose(projected, image.points2D[element.point2D_idx].xy, atol=1e-6)


def test_failed_frames_are_not_among_the_poses(landmarks: LandmarkMap, tmp_path: Path) -> None:
    poses = landmarks.images.T_world_cam
    results = [
        PoseResult("a.png", poses[0], "ok"),
        PoseResult("b.png", None, "failed", "dark"),
        PoseResult("c.png", poses[1], "ok"),
    ]
    poses_to_colmap(results, [CAMERA, CAMERA, CAMERA.resized(640, 480)], tmp_path)
    model = pycolmap.Reconstruction(str(tmp_path))
    found = {image.name: image for image in model.images.values()}
    assert sorted(found) == ["a.png", "c.png"]
    assert np.abs(pose_of(found["c.png"]) - poses[1]).max() < 1e-9
    assert model.cameras[found["c.png"].camera_id].width == 640
    assert len(model.points3D) == 0


def test_nothing_localized_is_an_empty_model(tmp_path: Path) -> None:
    for file in poses_to_colmap([], [], tmp_path):
        assert file.is_file()
