# SPDX-License-Identifier: Apache-2.0
"""TUM RGB-D: ``rgb.txt``, ``depth.txt``, ``groundtruth.txt`` with their own clocks, paired by the nearest stamp.

Pairs further apart than 20 ms are none. Depth is registered, 5000 units per metre. Intrinsics are those that the data
set publishes for freiburg1, 2 and 3, found by the folder's name, unless a ``camera.yaml`` or ``K.txt`` lies there or
``?fov_deg=`` or ``?K=`` is given.

The samples of the book "14 lectures on visual SLAM" are read too: ``color/N.png``, ``depth/``, ``pose.txt`` (``tx ty tz
qx qy qz qw`` per line, in the order of the numbers). Those with ``depth/N.pgm`` come from an RGB-D camera. Those with
``depth/N.png`` come from ICL-NUIM, whose camera has y up (a negative focal length): image and poses then show a
mirrored world, which is mirrored back here.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import DataError
from vision3d.geometry.cameras import Camera
from vision3d.geometry.trajectory import nearest_stamps, read_tum_trajectory, stamp_to_ns
from vision3d.readers._common import FrameReader, Record, check_frames, require_split
from vision3d.readers._images import image_size
from vision3d.readers._intrinsics import CAMERA_OPTIONS, camera_beside, camera_from_options
from vision3d.readers._poses import numbered_fields, numbers_of, pose_from_quaternion
from vision3d.readers._source import list_images, one_root, parse_source, score

MAX_GAP_NS = 20_000_000
FRAME_NS = 1_000_000_000 // 30
# fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, k5, k6 as published with the data set; freiburg3 is already undistorted.
FREIBURG = {
    "1": (517.306408, 516.469215, 318.643040, 255.313989, 0.262383, -0.953104, -0.005358, 0.002628, 1.163314, 0, 0, 0),
    "2": (520.908620, 521.007327, 325.141442, 249.701764, 0.231222, -0.784899, -0.003257, -0.000105, 0.917205, 0, 0, 0),
    "3": (535.433105, 539.212524, 320.106653, 247.632132, 0, 0, 0, 0, 0, 0, 0, 0),
}
DEFAULT_K = (525.0, 525.0, 319.5, 239.5)  # the data set's advice for unknown cameras
# The book's samples by the suffix of their depth files: fx fy cx cy, depth units per metre, y up.
NUMBERED = {
    ".pgm": ((518.0, 519.0, 325.5, 253.5), 1000.0, False),
    ".png": ((481.2, 480.0, 319.5, 239.5), 5000.0, True),
}
FLIP_Y = np.diag([1.0, -1.0, 1.0, 1.0])


class TumReader(FrameReader):
    """The colour images of one sequence in order of time."""

    def __init__(self, source: str, config: DataConfig) -> None:
        _, options = parse_source(source, CAMERA_OPTIONS)
        require_split(config, "a TUM sequence")
        root = one_root(source, _is_sequence, "TUM RGB-D sequence (rgb.txt, or color/ with pose.txt)")
        records, notes = _clocked(root) if (root / "rgb.txt").is_file() else _numbered(root)
        first = next((record.image for record in records if record.image.is_file()), None)
        if first is None:
            raise DataError(root, "none of its images is on disk")
        camera, note = _intrinsics(root, image_size(first), options)
        records = [Record(**{**vars(record), "camera": camera}) for record in records]
        super().__init__(root.name, records, config, [*notes, *note])


def _intrinsics(root: Path, size: tuple[int, int], options: dict[str, object]) -> tuple[Camera, list[str]]:
    camera = camera_from_options(options, size) or camera_beside(root, size)
    if camera is not None:
        return camera, []
    found = re.search(r"(?:freiburg|fr)([123])(?!\d)", root.name)
    if found:
        params = FREIBURG[found[1]]
        model = "FULL_OPENCV" if any(params[4:]) else "PINHOLE"
        return Camera(model, 640, 480, params if model == "FULL_OPENCV" else params[:4]), []
    K = DEFAULT_K if (root / "rgb.txt").is_file() else NUMBERED[_depth_suffix(root)][0]
    return Camera("PINHOLE", 640, 480, K), [
        f"guessed intrinsics f = {K[0]:g} px: the name {root.name} holds no freiburg1, 2 or 3; give ?K=fx,fy,cx,cy"
    ]


def _clocked(root: Path) -> tuple[list[Record], list[str]]:
    """Frames of rgb.txt that have a pose within 20 ms; all of them when there is no groundtruth.txt."""
    stamps, images = _file_list(root / "rgb.txt")
    depth_stamps, depths = _file_list(root / "depth.txt") if (root / "depth.txt").is_file() else (np.zeros(0), [])
    depth_of = nearest_stamps(stamps, depth_stamps, MAX_GAP_NS)
    truth = root / "groundtruth.txt"
    pose_of, poses = np.full(len(stamps), -1), np.zeros((0, 4, 4))
    if truth.is_file():
        try:
            pose_stamps, poses = read_tum_trajectory(truth)
        except ValueError as error:
            raise DataError(truth, str(error)) from None
        order = np.argsort(pose_stamps, kind="stable")
        pose_stamps, poses = pose_stamps[order], poses[order]
        pose_of = nearest_stamps(stamps, pose_stamps, MAX_GAP_NS)
    records, notes = [], []
    for i, (stamp, image) in enumerate(zip(stamps.tolist(), images)):
        if truth.is_file() and pose_of[i] < 0:
            continue
        problem = None if image.is_file() else DataError(image, "no such image, but rgb.txt names it")
        T = poses[pose_of[i]] if pose_of[i] >= 0 else None
        depth = depths[depth_of[i]] if depth_of[i] >= 0 else None
        records.append(Record(image.name, image, None, T, stamp, depth, 5000.0, problem))
    if len(records) < len(images):
        gap = MAX_GAP_NS // 1_000_000
        notes.append(f"{len(images) - len(records)} of {len(images)} images have no pose within {gap} ms: left out")
        if not records:
            raise DataError(truth, f"has no pose within {gap} ms of any image: do rgb.txt and it share a clock?")
    return records, notes


def _file_list(path: Path) -> tuple[np.ndarray, list[Path]]:
    """Stamps (N,) in nanoseconds and files of lines ``stamp file``, in order of time."""
    rows = []
    for number, fields in numbered_fields(path):
        if len(fields) != 2:
            raise DataError(path, f"line {number}: {len(fields)} fields, not 'stamp file'")
        try:
            rows.append((stamp_to_ns(fields[0]), path.parent / fields[1]))
        except ValueError as error:
            raise DataError(path, f"line {number}: {error}") from None
    if not rows:
        raise DataError(path, "names no file")
    rows.sort(key=lambda row: row[0])
    return np.array([stamp for stamp, _ in rows], dtype=np.int64), [file for _, file in rows]


def _numbered(root: Path) -> tuple[list[Record], list[str]]:
    """``color/N.png`` in numeric order with the lines of ``pose.txt``."""
    images = sorted(list_images(root / "color"), key=lambda p: (len(p.stem), p.stem))
    suffix = _depth_suffix(root)
    _, units_per_m, y_up = NUMBERED[suffix]
    lines = list(numbered_fields(root / "pose.txt"))
    if len(images) != len(lines):
        raise DataError(root / "pose.txt", f"holds {len(lines)} poses for {len(images)} images in color/")
    records = []
    for index, (image, (line, fields)) in enumerate(zip(images, lines)):
        values = numbers_of(fields, root / "pose.txt", line)
        if len(values) != 7:
            raise DataError(root / "pose.txt", f"line {line}: {len(values)} numbers, not 'tx ty tz qx qy qz qw'")
        x, y, z, w = values[3:]
        T, problem = pose_from_quaternion([w, x, y, z], values[:3], root / "pose.txt", line)
        if T is not None and y_up:
            T = FLIP_Y @ T @ FLIP_Y
        path = root / "depth" / f"{image.stem}{suffix}"
        depth = path if path.is_file() else None
        records.append(Record(image.name, image, None, T, index * FRAME_NS, depth, units_per_m, problem))
    return records, ["poses are those of ICL-NUIM, whose camera has y up: mirrored to y down"] if y_up else []


def _depth_suffix(root: Path) -> str:
    return ".pgm" if next((root / "depth").glob("*.pgm"), None) is not None else ".png"


def _is_sequence(folder: Path) -> bool:
    return (folder / "rgb.txt").is_file() or ((folder / "pose.txt").is_file() and (folder / "color").is_dir())


def match(source: str) -> float:
    return score(source, _is_sequence, 0.9)


def check(source: str) -> list[str]:
    return check_frames(TumReader, source)


SPEC = ReaderSpec(
    name="tum",
    summary="TUM RGB-D sequence: rgb.txt, depth.txt, groundtruth.txt, paired within 20 ms",
    samples="Frame",
    match=match,
    open=TumReader,
    card="tum-rgbd",
    check=check,
)
