# SPDX-License-Identifier: Apache-2.0
"""Cambridge Landmarks: images in ``seqN/``, ``dataset_train.txt``, ``dataset_test.txt``, ``reconstruction.nvm``.

The lists hold the camera *centre* and the quaternion (w first) of the *world-to-camera* rotation, after three header
lines. Focal length and radial distortion come per image from the NVM file, whose names end in .jpg where the lists
say .png. Without it, ``?fov_deg=`` or ``?K=`` gives one camera for all.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.geometry.se3 import from_rt
from vision3d.readers._common import FrameReader, Record, check_frames
from vision3d.readers._images import image_size
from vision3d.readers._intrinsics import CAMERA_OPTIONS, camera_from_options
from vision3d.readers._nvm import NvmCamera, read_nvm_cameras
from vision3d.readers._poses import ListedPose, numbers_of, pose_from_quaternion, read_text
from vision3d.readers._source import one_root, parse_source, score

HEADER_LINES = 3
SPLITS = ("train", "test")


class CambridgeReader(FrameReader):
    """Frames of one scene in the order of its lists, train before test."""

    def __init__(self, source: str, config: DataConfig) -> None:
        _, options = parse_source(source, CAMERA_OPTIONS)
        root = one_root(source, _is_scene, "Cambridge Landmarks scene (dataset_train.txt, dataset_test.txt)")
        if config.split not in ("all", *SPLITS):
            raise ConfigError(f"cambridge has the splits all, train and test, not '{config.split}'")
        poses: list[ListedPose] = []
        for split in SPLITS if config.split == "all" else (config.split,):
            poses += read_pose_list(root / f"dataset_{split}.txt")
        images = [_on_disk(root / pose.name) for pose in poses]
        first = next((image for image in images if image.is_file()), None)
        if first is None:
            raise DataError(images[0], f"no such image, nor any other of the {len(images)} that the lists name")
        size = image_size(first)
        notes = []
        camera = camera_from_options(options, size)
        cameras: dict[str, NvmCamera] = {}
        if camera is None:
            nvm = root / "reconstruction.nvm"
            if not nvm.is_file():
                raise DataError(nvm, "no such file: it holds the focal lengths; or give one with ?fov_deg= or ?K=")
            cameras = read_nvm_cameras(nvm)
        else:
            notes.append(f"one camera for all images, f = {camera.focal:.1f} px, from the options of the source")
        records = []
        for index, (pose, image) in enumerate(zip(poses, images)):
            own, problem = camera, pose.problem
            if not image.is_file():
                problem = DataError(image, "no such image, but the list names it")
            elif camera is None:
                found = cameras.get(Path(pose.name).with_suffix("").as_posix())
                if found is None:
                    problem = problem or DataError(root / "reconstruction.nvm", f"has no camera for {pose.name}")
                else:
                    own = found.camera(*size)
            records.append(Record(pose.name, image, own, pose.T_world_cam, index, problem=problem))
        super().__init__(root.name, records, config, notes)


def read_pose_list(path: Path) -> list[ListedPose]:
    """Lines ``name x y z qw qx qy qz`` after the header; ``T_world_cam`` has the centre as its translation.

    Raises:
        DataError: the file is missing, has no header, holds nothing, or a line has another number of fields.
    """
    lines = read_text(path).splitlines()
    if len(lines) < 2 or not lines[1].startswith("ImageFile"):
        raise DataError(path, "must begin with a title, the column names 'ImageFile, ...' and an empty line")
    poses = []
    for number, line in enumerate(lines[HEADER_LINES:], start=HEADER_LINES + 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 8:
            raise DataError(path, f"line {number}: {len(fields)} fields, not 'name x y z qw qx qy qz'")
        values = numbers_of(fields[1:], path, number)
        R_cam_world, problem = pose_from_quaternion(values[3:], [0.0, 0.0, 0.0], path, number)
        T = None
        if R_cam_world is not None:
            if np.isfinite(values[:3]).all():
                T = from_rt(R_cam_world[:3, :3].T, values[:3])
            else:
                problem = DataError(path, f"line {number}: pose holds NaN or infinite numbers")
        poses.append(ListedPose(fields[0], T, problem=problem))
    if not poses:
        raise DataError(path, "names no image: the split is empty")
    return poses


def _on_disk(image: Path) -> Path:
    """The image, or where there is none a .jpg of that name (converted copies)."""
    other = image.with_suffix(".jpg")
    return other if not image.is_file() and other.is_file() else image


def _is_scene(folder: Path) -> bool:
    return any((folder / f"dataset_{split}.txt").is_file() for split in SPLITS)


def match(source: str) -> float:
    return score(source, _is_scene, 0.95)


def check(source: str) -> list[str]:
    return check_frames(CambridgeReader, source)


SPEC = ReaderSpec(
    name="cambridge",
    summary="Cambridge Landmarks scene: dataset_train.txt, dataset_test.txt, reconstruction.nvm, seqN/*.png",
    samples="Frame",
    match=match,
    open=CambridgeReader,
    card="cambridge",
    check=check,
)
