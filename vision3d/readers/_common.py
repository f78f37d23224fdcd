# SPDX-License-Identifier: Apache-2.0
"""A reader of frames from a list of records: what every format file builds on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision3d.contracts import DataConfig, Reader
from vision3d.errors import ConfigError, DataError
from vision3d.geometry.cameras import Camera
from vision3d.geometry.se3 import pose_problem
from vision3d.readers import _images
from vision3d.readers._poses import read_pose_list
from vision3d.types import Float, Frame, FrameTruth


@dataclass(frozen=True)
class Record:
    """One frame of a data set before anything is read.

    Attributes:
        name: unique in the data set.
        image: its file.
        camera: intrinsics at the stored image size; None when the reader finds them later.
        T_world_cam: (4, 4) true pose, or None.
        depth: 16-bit PNG registered to the image, or None; ``depth_units_per_m`` is its scale.
        problem: why the frame cannot be used, known before reading it.
    """

    name: str
    image: Path
    camera: Camera | None = None
    T_world_cam: Float | None = None
    stamp_ns: int = 0
    depth: Path | None = None
    depth_units_per_m: float = 1000.0
    problem: DataError | None = None


class FrameReader:
    """Frames of one data set, read one at a time. Implements :class:`vision3d.contracts.Reader`.

    Args:
        name: of the data set, for titles and run folders.
        records: all frames of the wanted split, in order.
        config: its ``truth``, ``select``, ``size`` and ``skip_bad`` are applied here.
        notes: facts that the user must see (a guessed focal length, an arbitrary scale, missing sequences).
        truth_applied: the records carry the poses of ``config.truth`` already.

    Raises:
        DataError: no frame, duplicate names, or without ``skip_bad`` the first unusable record.
    """

    samples: type = Frame

    def __init__(
        self,
        name: str,
        records: Sequence[Record],
        config: DataConfig,
        notes: Iterable[str] = (),
        truth_applied: bool = False,
    ) -> None:
        self.name = name
        self.notes = tuple(notes)
        self.config = config
        if config.truth is not None and not truth_applied:
            records = self._with_truth(records, config.truth)
        _require_unique(name, records)
        self.records = tuple(select(records, config.select, name))
        bad: dict[int, str] = {}
        for index, record in enumerate(self.records):
            if record.problem is not None:
                if not config.skip_bad:
                    raise record.problem
                bad[index] = str(record.problem)
        self.bad: Mapping[int, str] = bad

    def __len__(self) -> int:
        return len(self.records)

    def key(self, index: int) -> str:
        return self.records[index].name

    def truth(self, index: int) -> FrameTruth | None:
        T = self.records[index].T_world_cam
        return None if T is None else FrameTruth(T)

    def camera(self, index: int) -> Camera:
        """The frame's intrinsics at the size it is delivered in; its image is not decoded."""
        camera = self._camera(index)
        return camera.resized(*_images.fitted_size(camera.width, camera.height, self.config.size))

    def __getitem__(self, index: int) -> Frame:
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        index %= len(self)
        record = self.records[index]
        if record.problem is not None:
            raise record.problem
        image = self._image(index)
        camera, depth_m = self._camera(index), self._depth(index)
        height, width = image.shape[:2]
        _require_size(record.image, (width, height), camera)
        if depth_m is not None and depth_m.shape != (height, width):
            raise DataError(
                record.depth or record.image,
                f"depth is {depth_m.shape[1]}x{depth_m.shape[0]} pixels but its image is {width}x{height}",
            )
        size = _images.fitted_size(width, height, self.config.size)
        if size != (width, height):
            image, camera = _images.resize_image(image, *size), camera.resized(*size)
            depth_m = None if depth_m is None else _images.resize_depth(depth_m, *size)
        return Frame(record.name, image, camera, record.stamp_ns, depth_m)

    # What a format may do differently.

    def _image(self, index: int) -> NDArray[np.uint8]:
        return _images.read_image(self.records[index].image)

    def _depth(self, index: int) -> NDArray[np.float32] | None:
        record = self.records[index]
        return None if record.depth is None else _images.read_depth_m(record.depth, record.depth_units_per_m)

    def _camera(self, index: int) -> Camera:
        camera = self.records[index].camera
        if camera is None:
            raise DataError(self.records[index].image, "has no intrinsics")
        return camera

    def _with_truth(self, records: Sequence[Record], path: Path) -> list[Record]:
        """Records with the poses of a list ``name qw qx qy qz tx ty tz [f]``, matched by name without suffix."""
        listed = {str(Path(pose.name).with_suffix("")): pose for pose in read_pose_list(path)}
        out = []
        for record in records:
            pose = listed.pop(str(Path(record.name).with_suffix("")), None)
            if pose is None:
                problem = DataError(path, f"has no pose for image {record.name}")
                out.append(replace(record, T_world_cam=None, problem=record.problem or problem))
            else:
                out.append(replace(record, T_world_cam=pose.T_world_cam, problem=record.problem or pose.problem))
        if listed:
            self.notes += (f"{path.name}: {len(listed)} listed images are not on disk, e.g. {next(iter(listed))}",)
        return out


def pose_or_problem(T: Float, path: Path, where: str = "") -> tuple[Float | None, DataError | None]:
    """(T, None) for a rigid motion, else (None, the error that names the file)."""
    problem = pose_problem(T)
    if not problem:
        return T, None
    return None, DataError(path, f"{where}: {problem}" if where else problem)


def require_split(config: DataConfig, name: str) -> None:
    """For data sets without splits.

    Raises:
        ConfigError: a split other than ``all`` was asked for.
    """
    if config.split != "all":
        raise ConfigError(
            f"{name} defines no split '{config.split}': use split 'all' and select, e.g. '::2' and '1::2'"
        )


def select(records: Sequence[Record], spec: str, name: str) -> Sequence[Record]:
    """``START:STOP:STEP`` as in Python.

    Raises:
        ConfigError: the text is no slice, or it leaves nothing.
        DataError: there was nothing to choose from.
    """
    if not records:
        raise DataError(name, "holds no frames")
    try:
        parts = [int(part) if part.strip() else None for part in spec.split(":")]
        if not 2 <= len(parts) <= 3:
            raise ValueError
        chosen = records[slice(*parts)]
    except ValueError:
        raise ConfigError(f"select '{spec}' is not START:STOP:STEP, e.g. '::2' or '1::2' or ':100'") from None
    if not chosen:
        raise ConfigError(f"select '{spec}' leaves none of the {len(records)} frames of {name}")
    return chosen


def check_frames(open_reader: Callable[[str, DataConfig], Reader], source: str) -> list[str]:
    """Problems of a data set, one line each: what cannot be opened, unusable frames, images of the wrong size."""
    try:
        reader = open_reader(source, DataConfig(skip_bad=True))
    except (DataError, ConfigError) as error:
        return [str(error)]
    problems = [reader.bad[index] for index in sorted(reader.bad)]
    if isinstance(reader, FrameReader):
        for index, record in enumerate(reader.records):
            if index in reader.bad or record.camera is None or not record.image.name:
                continue
            try:
                _require_size(record.image, _images.image_size(record.image), record.camera)
            except DataError as error:
                problems.append(str(error))
    return problems


def _require_size(path: Path, size: tuple[int, int], camera: Camera) -> None:
    if size != (camera.width, camera.height):
        raise DataError(
            path,
            f"image is {size[0]}x{size[1]} pixels but its calibration is for {camera.width}x{camera.height}",
        )


def _require_unique(name: str, records: Sequence[Record]) -> None:
    seen: dict[str, Record] = {}
    for record in records:
        if record.name in seen:
            raise DataError(record.image, f"the name {record.name} occurs twice in {name}")
        seen[record.name] = record
