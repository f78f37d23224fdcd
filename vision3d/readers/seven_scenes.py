# SPDX-License-Identifier: Apache-2.0
"""7-Scenes: ``<scene>/seq-XX/frame-NNNNNN.{color.png, depth.png, pose.txt}``, splits by sequence.

Two truths exist and must not be mixed. ``pose.txt`` is KinectFusion's camera-to-world pose of the *depth* camera;
with it the colour camera is by convention f = 525, c = (320, 240), taken as pixel coordinates without a half-pixel
shift. An SfM pseudo ground truth list (Brachmann et al., ICCV 2021; ``DataConfig.truth``) is world-to-camera with a
focal length per line. It was made by COLMAP with the principal point in the image's centre: (319.5, 239.5) in our
pixels. (On redkitchen this halves the distance to the point that minimises the epipolar error of SIFT matches;
localization does not notice: 0.17 cm / 0.06 deg either way.)

Depth is not registered to colour, so frames carry none, unless ``?registered=true`` asks for a reprojection with the
depth camera f = 585, c = (320, 240) and a calibration measured on another Kinect (good to a few pixels).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.geometry.cameras import Camera
from vision3d.geometry.se3 import rotation_angle_deg
from vision3d.readers import _images
from vision3d.readers._common import FrameReader, Record, check_frames, pose_or_problem
from vision3d.readers._poses import ListedPose, read_matrix, read_pose_list, read_text
from vision3d.readers._source import find_roots, flag, one_root, parse_source, score
from vision3d.types import Float

SIZE = (640, 480)
FRAME_NS = 1_000_000_000 // 30
MOTION_GAP_DEG = 12.0
DEPTH_CAMERA = Camera("PINHOLE", *SIZE, (585.0, 585.0, 320.0, 240.0))
# Depth to colour camera of another first Kinect, as published by LIRIS Lyon and commonly used with this data set.
T_COLOR_DEPTH = np.array(
    [
        [9.9996518012567637e-01, 2.6765126468950343e-03, -7.9041012313000904e-03, -2.5558943178152542e-02],
        [-2.7409311281316700e-03, 9.9996302803027592e-01, -8.1504520778013286e-03, 1.0109636268061706e-04],
        [7.8819942130445332e-03, 8.1718328771890631e-03, 9.9993554558014031e-01, 2.0318321729487039e-03],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


class SevenScenesReader(FrameReader):
    """Frames of one scene, sorted by name."""

    def __init__(self, source: str, config: DataConfig) -> None:
        _, options = parse_source(source, {"registered": flag})
        root = one_root(source, _is_scene, "7-Scenes scene (folders seq-XX with frame-NNNNNN.* files)")
        only = root.name if re.fullmatch(r"seq-\d+", root.name) else ""
        if only:
            root = root.parent
        self.registered = options.get("registered", False)
        listed = None if config.truth is None else {_stem(p.name): p for p in read_pose_list(config.truth)}
        sequences, notes = _sequences(root, config, listed, only)
        records = [record for seq in sequences for record in _records(root, seq, listed, config)]
        if listed is not None:
            records = sorted(records, key=lambda r: r.name)
            _require_same_motion(records, config)
            missing = sorted(set(listed) - {_stem(record.name) for record in records})
            wanted = [stem for stem in missing if stem.split("/")[0] in sequences]
            if wanted:
                notes.append(f"{len(wanted)} frames listed in {config.truth} are not on disk, the first is {wanted[0]}")
        # The list has been applied here, focal lengths included.
        super().__init__(root.name, records, config, notes, truth_applied=True)

    def _depth(self, index: int) -> NDArray[np.float32] | None:
        if not self.registered:
            return None
        image = self.records[index].image
        path = image.with_name(image.name.split(".")[0] + ".depth.png")
        return register_depth(_images.read_depth_m(path, 1000.0), self._camera(index))


def register_depth(depth_m: NDArray[np.float32], camera: Camera) -> NDArray[np.float32]:
    """Depth (H, W) of the depth camera seen from the colour ``camera``: nearest point per pixel, 0 where none.

    Each depth pixel is put into the one colour pixel it falls on, so small holes stay.
    """
    v, u = np.nonzero(depth_m > 0)
    z = depth_m[v, u].astype(np.float64)
    points_depth = np.stack([(u - 320.0) / 585.0 * z, (v - 240.0) / 585.0 * z, z], axis=-1)
    points_color = points_depth @ T_COLOR_DEPTH[:3, :3].T + T_COLOR_DEPTH[:3, 3]
    uv = np.rint(np.nan_to_num(camera.project(points_color), nan=-1.0)).astype(np.int64)
    seen = camera.contains(uv)
    out = np.full((camera.height, camera.width), np.inf, dtype=np.float32)
    np.minimum.at(out, (uv[seen, 1], uv[seen, 0]), points_color[seen, 2].astype(np.float32))
    return np.where(np.isfinite(out), out, 0).astype(np.float32)


def read_split(path: Path) -> list[str]:
    """Sequence folders of a split file, whose lines are ``sequenceK``; raises DataError for anything else."""
    sequences = []
    for line in read_text(path).split():
        found = re.fullmatch(r"(?:sequence|seq-?)(\d+)", line)
        if found is None:
            raise DataError(path, f"'{line}' is not of the form sequenceK")
        sequences.append(f"seq-{int(found[1]):02d}")
    if not sequences:
        raise DataError(path, "names no sequence: the split is empty")
    return sequences


def _sequences(
    root: Path, config: DataConfig, listed: dict[str, ListedPose] | None, only: str
) -> tuple[list[str], list[str]]:
    """Sequence folders to read, and notes on those that were asked for but are absent."""
    present = [only] if only else sorted(p.name for p in root.glob("seq-*") if p.is_dir())
    if config.split == "all":
        # A list of poses is itself a split: sequences that it does not mention are not part of it.
        wanted = present if listed is None else sorted({stem.split("/")[0] for stem in listed})
        origin = root if config.truth is None else config.truth
    elif config.split in ("train", "test"):
        origin = root / f"{config.split.capitalize()}Split.txt"
        wanted = read_split(origin)
    else:
        raise ConfigError(f"7scenes has the splits all, train and test, not '{config.split}'")
    absent = [seq for seq in wanted if seq not in present]
    chosen = [seq for seq in wanted if seq in present]
    if not chosen:
        raise DataError(origin, f"names sequences that are not on disk: {', '.join(absent)}")
    return chosen, [f"split {config.split}: sequences not on disk: {', '.join(absent)}"] if absent else []


def _records(root: Path, seq: str, listed: dict[str, ListedPose] | None, config: DataConfig) -> list[Record]:
    frames: dict[str, dict[str, Path]] = {}
    for path in sorted((root / seq).glob("frame-*")):
        stem, _, kind = path.name.partition(".")
        if kind in ("color.png", "color.jpg", "pose.txt"):
            if kind.startswith("color") and "color" in frames.setdefault(stem, {}):
                raise DataError(path, f"the name {seq}/{stem} occurs twice: .png and .jpg")
            frames.setdefault(stem, {})[kind.split(".")[0]] = path
    records = []
    for stem, files in frames.items():
        image = files.get("color", root / seq / f"{stem}.color.png")
        camera, T, problem = Camera("PINHOLE", *SIZE, (525.0, 525.0, 320.0, 240.0)), None, None
        if "color" not in files:
            problem = DataError(image, "no such image, but its pose file is there")
        elif listed is not None:
            camera, T, problem = _from_list(listed.get(f"{seq}/{stem}"), image, camera, config)
        elif "pose" not in files:
            problem = DataError(root / seq / f"{stem}.pose.txt", "no such pose file")
        else:
            try:
                T, problem = pose_or_problem(read_matrix(files["pose"]), files["pose"])
            except DataError as error:
                problem = error
        number = re.search(r"\d+", stem)
        stamp = int(number[0]) * FRAME_NS if number else 0
        records.append(Record(f"{seq}/{image.name}", image, camera, T, stamp, problem=problem))
    return records


def _from_list(
    pose: ListedPose | None, image: Path, camera: Camera, config: DataConfig
) -> tuple[Camera, Float | None, DataError | None]:
    if pose is None:
        return camera, None, DataError(image, f"has no pose in {config.truth}")
    if pose.focal is not None:
        if not 0 < pose.focal < 1e5:
            return camera, None, DataError(image, f"focal length {pose.focal} in {config.truth} is not possible")
        camera = Camera("PINHOLE", *SIZE, (pose.focal, pose.focal, 319.5, 239.5))
    return camera, pose.T_world_cam, pose.problem


def _require_same_motion(records: list[Record], config: DataConfig) -> None:
    """A list whose camera turns otherwise than pose.txt says has its quaternions or its direction mixed up.

    Neither shows in a single line. Relative rotations do not depend on the world frame, so a list in a world of its
    own passes; the two truths of 7-Scenes differ by a few degrees.
    """
    turns: list[tuple[Float, Float]] = []
    for record in records[:: max(len(records) // 12, 1)]:
        path = record.image.with_name(record.image.name.split(".")[0] + ".pose.txt")
        if record.T_world_cam is not None and path.is_file():
            try:
                T, _ = pose_or_problem(read_matrix(path), path)
            except DataError:
                continue  # the list replaces this file, so its damage does not matter
            if T is not None:
                turns.append((record.T_world_cam[:3, :3], T[:3, :3]))
    gaps = [
        float(rotation_angle_deg((A.T @ B).T @ (a.T @ b))) for i, (A, a) in enumerate(turns) for B, b in turns[i + 1 :]
    ]
    if gaps and np.median(gaps) > MOTION_GAP_DEG:
        raise DataError(
            config.truth or "",
            f"its camera turns otherwise than pose.txt says (median {np.median(gaps):.0f} deg apart): "
            "are the quaternions in the order w x y z, and the poses world-to-camera?",
        )


def _stem(name: str) -> str:
    """``seq-01/frame-000007.color.png`` -> ``seq-01/frame-000007``: lists say .png where a copy may hold .jpg."""
    folder, _, file = name.replace("\\", "/").rpartition("/")
    return f"{folder}/{file.split('.')[0]}"


def _is_scene(folder: Path) -> bool:
    if re.fullmatch(r"seq-\d+", folder.name):
        return next(folder.glob("frame-*.color.*"), None) is not None
    sequences = (p for p in folder.glob("seq-*") if p.is_dir())
    return any(next(seq.glob("frame-*"), None) is not None for seq in sequences)


def match(source: str) -> float:
    return score(source, _is_scene, 0.95)


def check(source: str) -> list[str]:
    problems = check_frames(SevenScenesReader, source)
    for root in find_roots(source, _is_scene)[:1]:
        for name in ("TrainSplit.txt", "TestSplit.txt"):
            try:
                absent = [seq for seq in read_split(root / name) if not (root / seq).is_dir()]
            except DataError as error:
                problems.append(str(error))
                continue
            if absent:
                problems.append(f"{root / name}: names sequences that are not on disk: {', '.join(absent)}")
    return problems


SPEC = ReaderSpec(
    name="7scenes",
    summary="7-Scenes scene folder: seq-XX/frame-NNNNNN.{color.png,pose.txt}; --truth takes SfM pseudo ground truth",
    samples="Frame",
    match=match,
    open=SevenScenesReader,
    card="7scenes",
    check=check,
)
