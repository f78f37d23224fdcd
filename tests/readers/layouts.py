# SPDX-License-Identifier: Apache-2.0
"""Tiny data sets in the native layouts of others, written from the synthetic room's frames."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from vision3d.geometry.se3 import invert, rotation_to_quat
from vision3d.types import Float, Frame

Posed = Sequence[tuple[Frame, Float]]


def write_image(path: Path, frame: Frame) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
    return path


def write_depth(path: Path, frame: Frame, units_per_m: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.rint(frame.depth_m * units_per_m).astype(np.uint16))


def rows(matrix: Float) -> str:
    return "\n".join(" ".join(f"{value:.9e}" for value in row) for row in matrix) + "\n"


def numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.9f}" for value in values)


def world_to_cam(T_world_cam: Float) -> tuple[Float, Float]:
    """Quaternion (w, x, y, z) and translation."""
    T = invert(T_world_cam)
    return rotation_to_quat(T[:3, :3]), T[:3, 3]


def seven_scenes(root: Path, posed: Posed, suffix: str = "png") -> Path:
    """Even frames in seq-01 (train), odd ones in seq-02 (test). Images must be 640x480."""
    for i, (frame, T) in enumerate(posed):
        stem = root / f"seq-{1 + i % 2:02d}" / f"frame-{i:06d}"
        write_image(stem.with_name(stem.name + f".color.{suffix}"), frame)
        stem.with_name(stem.name + ".pose.txt").write_text(rows(T))
    (root / "TrainSplit.txt").write_text("sequence1\n")
    (root / "TestSplit.txt").write_text("sequence2\n")
    return root


def pose_list(path: Path, names: Sequence[str], poses: Sequence[Float], focal: float | None = None) -> Path:
    """The SfM pseudo ground truth format."""
    lines = []
    for name, T in zip(names, poses):
        q, t = world_to_cam(T)
        lines.append(f"{name} {numbers([*q, *t])}" + ("" if focal is None else f" {focal}"))
    path.write_text("\n".join(lines) + "\n")
    return path


def posed_folder(root: Path, posed: Posed) -> Path:
    for i, (frame, _) in enumerate(posed):
        write_image(root / "images" / f"{i:05d}.png", frame)
        write_depth(root / "depth" / f"{i:05d}.png", frame, 1000.0)
    (root / "poses.txt").write_text("".join(numbers(T.ravel()) + "\n" for _, T in posed))
    (root / "K.txt").write_text(rows(posed[0][0].camera.K))
    return root


def cambridge(root: Path, posed: Posed, k: float = 0.0) -> Path:
    """Even frames in train, odd ones in test; the NVM names end in .jpg as the data set's do."""
    header = "Visual Landmark Dataset V1\nImageFile, Camera Position [X Y Z W P Q R]\n\n"
    lists: dict[str, list[str]] = {"train": [], "test": []}
    nvm = []
    for i, (frame, T) in enumerate(posed):
        name = f"seq{1 + i % 2}/frame{i:05d}"
        write_image(root / f"{name}.png", frame)
        q, _ = world_to_cam(T)
        lists["test" if i % 2 else "train"].append(f"{name}.png {numbers([*T[:3, 3], *q])}")
        nvm.append(f"{name}.jpg {frame.camera.focal + i:.6f} {numbers([*q, *T[:3, 3]])} {k} 0")
    for split, lines in lists.items():
        (root / f"dataset_{split}.txt").write_text(header + "\n".join(lines) + "\n")
    points = "1\n0.5 0.25 1 200 100 50 1 0 0 3.5 -2.5\n"
    (root / "reconstruction.nvm").write_text("NVM_V3 \n\n" + f"{len(nvm)}\n" + "\n".join(nvm) + "\n\n" + points)
    return root


def tum(root: Path, posed: Posed, pose_lag_s: float = 0.004) -> Path:
    rgb, depth, truth = ["# colour"], ["# depth"], ["# truth"]
    for i, (frame, T) in enumerate(posed):
        stamp = 1305031102.175304 + i / 30
        write_image(root / "rgb" / f"{stamp:.6f}.png", frame)
        write_depth(root / "depth" / f"{stamp + 0.01:.6f}.png", frame, 5000.0)
        rgb.append(f"{stamp:.6f} rgb/{stamp:.6f}.png")
        depth.append(f"{stamp + 0.01:.6f} depth/{stamp + 0.01:.6f}.png")
        w, x, y, z = rotation_to_quat(T[:3, :3])
        truth.append(f"{stamp + pose_lag_s:.4f} {numbers([*T[:3, 3], x, y, z, w])}")
    for name, lines in (("rgb", rgb), ("depth", depth), ("groundtruth", truth)):
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def transforms(root: Path, posed: Posed, **extra: object) -> Path:
    """instant-ngp's file: OpenGL camera axes, principal point from the image's corner."""
    camera = posed[0][0].camera
    frames = []
    for i, (frame, T) in enumerate(posed):
        write_image(root / "images" / f"{i:04d}.png", frame)
        matrix = T @ np.diag([1.0, -1.0, -1.0, 1.0])
        frames.append({"file_path": f"./images/{i:04d}.png", "transform_matrix": matrix.tolist()})
    data = {
        "fl_x": camera.fx,
        "fl_y": camera.fy,
        "cx": camera.cx + 0.5,
        "cy": camera.cy + 0.5,
        "w": float(camera.width),
        "h": float(camera.height),
        "frames": frames,
        **extra,
    }
    (root / "transforms.json").write_text(json.dumps(data))
    return root


def colmap(root: Path, posed: Posed, binary: bool = True, sub: str = "sparse/0") -> Path:
    """A model with 20 exact points per frame, each seen by that frame and, where visible, the others."""
    import pycolmap

    model = pycolmap.Reconstruction()
    camera = posed[0][0].camera.to_colmap()
    camera.camera_id = 1
    model.add_camera_with_trivial_rig(camera)
    rng = np.random.default_rng(0)
    points = []
    for frame, T in posed:
        uv = rng.integers([8, 8], [frame.camera.width - 8, frame.camera.height - 8], (20, 2))
        depth = frame.depth_m[uv[:, 1], uv[:, 0]].astype(np.float64)
        xy = frame.camera.normalize(uv)
        points.append(np.concatenate([xy, np.ones((20, 1))], axis=1) * depth[:, None] @ T[:3, :3].T + T[:3, 3])
    world = np.concatenate(points)
    seen: list[list[tuple[int, int]]] = [[] for _ in world]
    for i, (frame, T) in enumerate(posed):
        write_image(root / "images" / f"{i:04d}.png", frame)
        uv = frame.camera.project((world - T[:3, 3]) @ T[:3, :3])
        visible = np.flatnonzero(frame.camera.contains(uv))
        image = pycolmap.Image(f"{i:04d}.png", uv[visible] + 0.5, 1, i + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(invert(T)[:3]))
        for at, index in enumerate(visible):
            seen[index].append((i + 1, at))
    for xyz, observations in zip(world, seen):
        track = pycolmap.Track()
        for image_id, at in observations:
            track.add_element(image_id, at)
        model.add_point3D(xyz, track)
    folder = root / sub
    folder.mkdir(parents=True, exist_ok=True)
    (model.write_binary if binary else model.write_text)(str(folder))
    return root
