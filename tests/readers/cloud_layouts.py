# SPDX-License-Identifier: Apache-2.0
"""Tiny data sets of cloud pairs in the layouts of others, all of one computed street whose flow is known exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
from numpy.typing import NDArray

from vision3d.geometry.se3 import from_rt, invert, rotation_to_quat, rotvec_to_rotation, transform
from vision3d.types import Float

PAIRS = 4
FIRST_NS, STEP_NS = 315_966_265_259_836_000, 100_000_000
CAR_SIZE = np.array([4.2, 1.8, 1.5])
# Place at the start (the road is 1.7 m below the sensor) and metres per tenth of a second.
CARS = (
    (np.array([9.0, 3.0, -0.9]), np.array([0.9, 0.0, 0.0])),
    (np.array([16.0, -3.2, -0.9]), np.array([-1.1, 0.0, 0.0])),
    (np.array([13.0, 7.5, -0.9]), np.zeros(3)),
)
GROUND, STATIC = -2, -1
CATEGORIES = {GROUND: 0, STATIC: 0, 0: 19, 1: 19, 2: 25}  # two cars and a truck, as Argoverse 2 counts


@dataclass(frozen=True)
class Scan:
    """Points (N, 3) float32, lidar axes, and whose each is: a car's number, STATIC or GROUND."""

    points: NDArray[np.float32]
    owner: NDArray[np.int64]


def T_world_sensor(step: int) -> Float:
    return from_rt(rotvec_to_rotation([0, 0, 0.006 * step]), [0.55 * step, 0.03 * step, 0.0])


def T_target_source(step: int) -> Float:
    return invert(T_world_sensor(step + 1)) @ T_world_sensor(step)


def T_world_car(car: int, step: int) -> Float:
    start, speed = CARS[car]
    return from_rt(np.eye(3), start + speed * step)


def scan(step: int, count: int = 900) -> Scan:
    """What the sensor samples of the street at a tenth of a second: a fresh sample of the same surfaces each time."""
    rng = np.random.default_rng([7, step])
    per_car, ground = count // 9, count // 4
    parts, owner = [], []
    for car in range(len(CARS)):
        box = rng.uniform(-0.5, 0.5, (per_car, 3))
        side = rng.integers(0, 3, per_car)
        box[np.arange(per_car), side] = np.where(rng.random(per_car) < 0.5, -0.5, 0.5)
        parts.append(transform(T_world_car(car, step), box * CAR_SIZE))
        owner.append(np.full(per_car, car))
    xy = rng.uniform([2, -7], [28, 7], (ground, 2))
    parts.append(np.column_stack([xy, np.full(ground, -1.7)]))
    owner.append(np.full(ground, GROUND))
    rest = count - ground - per_car * len(CARS)
    x, z, left = rng.uniform(0, 28, rest), rng.uniform(-1.5, 3, rest), rng.random(rest) < 0.5
    # Fronts with bays: a flat wall would say nothing about motion along it.
    depth = np.where(np.floor(x / 3).astype(int) % 2 == 0, 9.0, 10.2)
    parts.append(np.column_stack([x, np.where(left, depth, -depth), z]))
    owner.append(np.full(rest, STATIC))
    world = np.concatenate(parts)
    order = rng.permutation(len(world))
    points = transform(invert(T_world_sensor(step)), world)[order].astype(np.float32)
    return Scan(points, np.concatenate(owner)[order])


def moved(scanned: Scan, step: int) -> Float:
    """(N, 3) where the points of a scan are in the next scan's frame."""
    out = transform(T_target_source(step), scanned.points)
    for car, (_, speed) in enumerate(CARS):
        of_car = scanned.owner == car
        world = transform(T_world_sensor(step), scanned.points[of_car]) + speed
        out[of_car] = transform(invert(T_world_sensor(step + 1)), world)
    return out


def flow_of(scanned: Scan, step: int) -> NDArray[np.float32]:
    return (moved(scanned, step) - scanned.points).astype(np.float32)


def moves(scanned: Scan) -> NDArray[np.bool_]:
    return np.isin(scanned.owner, (0, 1))


def camera_axes(points: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.ascontiguousarray(points[:, [1, 2, 0]], dtype=np.float32)


def clouds(root: Path) -> str:
    """Files of pairs with truth."""
    root.mkdir(parents=True, exist_ok=True)
    for step in range(PAIRS):
        source = scan(step)
        np.savez(
            root / f"{step:03d}.npz",
            source=source.points,
            target=scan(step + 1).points,
            flow=flow_of(source, step),
            valid=np.ones(len(source.points), dtype=bool),
            dynamic=moves(source),
            T_target_source=T_target_source(step),
        )
    return str(root)


def scans(root: Path, write: Callable[[Path, NDArray[np.float32]], None], suffix: str) -> Path:
    """A folder of consecutive scans, whose numbers sort as text in another order."""
    root.mkdir(parents=True, exist_ok=True)
    for step in range(PAIRS + 1):
        write(root / f"{step + 8}{suffix}", scan(step).points)
    return root


def flow_s(root: Path) -> str:
    for step in range(PAIRS):
        source = scan(step)
        folder = root / f"{step:07d}"
        folder.mkdir(parents=True)
        np.save(folder / "pc1.npy", camera_axes(source.points))
        np.save(folder / "pc2.npy", camera_axes(moved(source, step)))
    return str(root)


def flow_o(root: Path) -> str:
    """FlyingThings3D's files: x right, y down, z forward."""
    root.mkdir(parents=True, exist_ok=True)
    for step in range(PAIRS):
        source, target = scan(step), scan(step + 1)
        arrays = {
            "points1": camera_axes(source.points) * np.float32([-1, -1, 1]),
            "points2": camera_axes(target.points) * np.float32([-1, -1, 1]),
            "flow": camera_axes(flow_of(source, step)) * np.float32([-1, -1, 1]),
            "valid_mask1": source.points[:, 0] > 1.0,
        }
        np.savez(root / f"TRAIN_A_0000_left_{step + 6:04d}-0.npz", **arrays)
    return str(root)


def kitti_flow(root: Path) -> str:
    for scene in range(PAIRS):
        kitti_scene(root / "training", f"{scene:06d}", scene)
    return str(root)


# Half of KITTI's resolution, the LiDAR's density.
KITTI_P = np.array([[360.0, 0, 309.5, 22.0], [0, 360.0, 93.5, 0.1], [0, 0, 1, 0.003]])
KITTI_SIZE = (188, 620)


def kitti_scene(training: Path, scene: str, seed: int) -> tuple[Float, Float, NDArray[np.bool_], Float]:
    """Writes one scene; returns positions (N, 3) in both frames (camera axes), who moves, and the camera's motion."""
    height, width = KITTI_SIZE
    v, u = np.mgrid[0:height:4, 0:width:4]
    u, v = u.ravel().astype(float), v.ravel().astype(float)
    f, cx, cy = KITTI_P[0, 0], KITTI_P[0, 2], KITTI_P[1, 2]
    ray = np.stack([-(u - cx) / f, -(v - cy) / f, np.ones(len(u))], axis=1)
    with np.errstate(divide="ignore"):
        road = np.where(ray[:, 1] < -0.02, -1.65 / ray[:, 1], np.inf)
        wall = np.where(np.abs(ray[:, 0]) > 0.05, 8.5 / np.abs(ray[:, 0]), np.inf)
    z = np.minimum(np.minimum(road, wall), 30.0)
    car = (np.abs(ray[:, 0] * 11 + 2) < 1.0) & (np.abs(ray[:, 1] * 11 + 0.7) < 0.8)
    z[car] = 11 + 0.3 * seed
    first = ray * z[:, None]
    # The sensor's own motion is forward, as if the world came nearer; the car goes on ahead.
    T = from_rt(rotvec_to_rotation([0.001, 0.004 * (seed + 1), 0.0]), [0.05, 0.0, -0.6])
    second = transform(T, first) + np.where(car[:, None], [0.1, 0.0, 1.1], 0.0)
    known = np.random.default_rng(seed).random(len(u)) < 0.6

    def project(points: Float) -> Float:
        x, y, depth = -points[:, 0], -points[:, 1], points[:, 2]
        s = depth + KITTI_P[2, 3]
        return np.stack([(f * x + cx * depth + KITTI_P[0, 3]) / s, (f * y + cy * depth + KITTI_P[1, 3]) / s], axis=1)

    # What the files can say: disparity in steps of 1/256, flow in steps of 1/64 pixel, the first point at a pixel.
    maps = {"disp_occ_0": f * 0.54 / first[:, 2], "disp_occ_1": f * 0.54 / second[:, 2]}
    pixels = (v.astype(int), u.astype(int))
    for name, disparity in maps.items():
        image = np.zeros(KITTI_SIZE, dtype=np.uint16)
        image[pixels] = np.where(known, np.rint(disparity * 256), 0)
        write_png(training / name / f"{scene}_10.png", image)
    from vision3d.readers._flow_kitti import unproject

    on_pixel = unproject(np.stack([u, v], axis=1), np.rint(maps["disp_occ_0"] * 256) / 256, KITTI_P)
    goes = project(second + (on_pixel - first)) - np.stack([u, v], axis=1)
    image = np.zeros((*KITTI_SIZE, 3), dtype=np.uint16)
    image[pixels] = np.column_stack([known, np.rint(goes[:, ::-1] * 64 + 32768)]).astype(np.uint16)
    write_png(training / "flow_occ" / f"{scene}_10.png", image)
    (training / "calib_cam").mkdir(exist_ok=True)
    numbers = " ".join(f"{value:.9e}" for value in KITTI_P.ravel())
    (training / "calib_cam" / f"{scene}.txt").write_text(f"calib_time: none\nP_rect_02: {numbers}\n")
    return on_pixel[known], (second + on_pixel - first)[known], car[known], T


def write_png(path: Path, image: NDArray[np.uint16] | NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def av2(root: Path) -> str:
    av2_log(root / "val" / "0000aaaa-log")
    return str(root)


def av2_log(log: Path, scans: int = PAIRS + 1) -> Path:
    (log / "sensors" / "lidar").mkdir(parents=True)
    poses, boxes = [], []
    for step in range(scans):
        stamp = FIRST_NS + step * STEP_NS
        points = scan(step).points.astype(np.float16)
        columns = {axis: points[:, i] for i, axis in enumerate("xyz")}
        write_feather(log / "sensors" / "lidar" / f"{stamp}.feather", {**columns, "intensity": np.zeros(len(points))})
        poses.append((stamp, T_world_sensor(step)))
        for car in range(len(CARS)):
            T = invert(T_world_sensor(step)) @ T_world_car(car, step)
            boxes.append((stamp, f"track-{car}", "TRUCK" if car == 2 else "REGULAR_VEHICLE", T))
    write_feather(log / "city_SE3_egovehicle.feather", pose_columns([s for s, _ in poses], [T for _, T in poses]))
    table = pose_columns([box[0] for box in boxes], [box[3] for box in boxes])
    table |= {"track_uuid": [box[1] for box in boxes], "category": [box[2] for box in boxes]}
    # The tools add 0.2 m to length and width; these boxes fit, so that half precision does not matter.
    sizes = dict(zip(("length_m", "width_m", "height_m"), CAR_SIZE + [0.0, 0.0, 0.05]))
    table |= {key: np.full(len(boxes), value) for key, value in sizes.items()}
    write_feather(log / "annotations.feather", table)
    return log


def pose_columns(stamps: list[int], poses: list[Float]) -> dict[str, object]:
    quaternions = np.array([rotation_to_quat(T[:3, :3]) for T in poses])
    columns: dict[str, object] = {"timestamp_ns": np.array(stamps, dtype=np.int64)}
    columns |= {name: quaternions[:, i] for i, name in enumerate(("qw", "qx", "qy", "qz"))}
    return columns | {name: np.array([T[i, 3] for T in poses]) for i, name in enumerate(("tx_m", "ty_m", "tz_m"))}


def write_feather(path: Path, columns: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    feather.write_feather(pa.table(columns), str(path))


def openflow(root: Path) -> str:
    root.mkdir(parents=True, exist_ok=True)
    openflow_log(root / "log-a.h5")
    return str(root)


def openflow_log(path: Path, scans: int = PAIRS + 1) -> Path:
    with h5py.File(path, "w") as file:
        for step in range(scans):
            scanned = scan(step)
            group = file.create_group(str(FIRST_NS + step * STEP_NS))
            intensity = np.zeros((len(scanned.points), 1), dtype=np.float32)
            group["lidar"] = np.hstack([scanned.points, intensity])
            group["ground_mask"] = scanned.owner == GROUND
            group["pose"] = T_world_sensor(step).astype(np.float32)
            if step < scans - 1:
                group["flow"] = flow_of(scanned, step)
                group["flow_is_valid"] = np.ones(len(scanned.points), dtype=bool)
                group["flow_category_indices"] = np.array([CATEGORIES[o] for o in scanned.owner], dtype=np.uint8)
                group["ego_motion"] = T_target_source(step).astype(np.float32)
    return path


def write_pfm(path: Path, image: NDArray[np.floating]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "PF" if image.ndim == 3 else "Pf"
    header = f"{kind}\n{image.shape[1]} {image.shape[0]}\n-1.0\n".encode()
    path.write_bytes(header + np.ascontiguousarray(image[::-1], dtype="<f4").tobytes())


def write_flo(path: Path, flow: NDArray[np.floating]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = np.array([flow.shape[1], flow.shape[0]], dtype="<i4").tobytes()
    path.write_bytes(b"PIEH" + size + np.ascontiguousarray(flow, dtype="<f4").tobytes())


def flyingthings(root: Path) -> str:
    for frame in range(PAIRS):
        flyingthings_frame(root / "val", f"{frame:07d}", frame)
    return str(root)


def flyingthings_frame(
    split: Path, name: str, seed: int, size: tuple[int, int] = (54, 96)
) -> tuple[Float, Float, NDArray[np.bool_]]:
    """Writes a frame: a wavy wall and a box, both moving. Returns positions in both frames and what is seen."""
    v, u = np.mgrid[0 : size[0], 0 : size[1]].astype(float)
    box = (np.abs(u - 40 - seed) < 14) & (np.abs(v - 25) < 12)
    depth = np.where(box, 11.0 + 0.05 * u, 24 + 2 * np.sin(u / 9) + 12 * (v < 4))
    first = np.stack([-(u - 479.5) * depth / 1050, -(v - 269.5) * depth / 1050, depth], axis=-1)
    second = first + np.where(box[..., None], [0.3, -0.1, 0.8], [0.02, 0.0, -0.2])
    end = np.stack([479.5 - 1050 * second[..., 0] / second[..., 2], 269.5 - 1050 * second[..., 1] / second[..., 2]], -1)
    hidden = [np.zeros(size, dtype=np.uint8) for _ in range(2)]
    hidden[0][10:14, :], hidden[1][:, 70:80] = 255, 255
    # The subset stores disparity below zero.
    write_pfm(split / "disparity/left" / f"{name}.pfm", -1050 / depth)
    write_pfm(split / "disparity_change/left/into_future" / f"{name}.pfm", -1050 / second[..., 2] + 1050 / depth)
    write_flo(split / "flow/left/into_future" / f"{name}.flo", end - np.stack([u, v], axis=-1))
    for folder, mask in zip(("disparity_occlusions/left", "flow_occlusions/left/into_future"), hidden):
        write_png(split / folder / f"{name}.png", mask)
    return first, second, (hidden[0] == 0) & (hidden[1] == 0)


# reader -> writes a data set of PAIRS pairs below a folder and returns what a user would type
CLOUD_DATA: dict[str, Callable[[Path], str]] = {
    "clouds": clouds,
    "flow-s": flow_s,
    "flow-o": flow_o,
    "kitti-flow": kitti_flow,
    "av2": av2,
    "flyingthings": flyingthings,
    "openflow": openflow,
}
