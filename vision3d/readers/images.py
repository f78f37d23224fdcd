# SPDX-License-Identifier: Apache-2.0
"""A plain folder of images. Poses, and intrinsics where none are given, come from structure from motion.

Intrinsics that are given (``?fov_deg=60`` across the longer side, ``?K=f`` or ``?K=fx,fy,cx,cy``, ``?exif=true``, or a
``camera.yaml`` or ``K.txt`` beside the images) are kept as they are. Structure from motion runs only when it is needed:
for the pose of a frame, or for its intrinsics when none are given. So images with known intrinsics can be localized in
a map without it; ``?poses=none`` makes sure of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.geometry.cameras import Camera
from vision3d.readers._common import FrameReader, Record, require_split
from vision3d.readers._images import image_size
from vision3d.readers._intrinsics import CAMERA_OPTIONS, camera_beside, camera_from_options, exif_focal_px
from vision3d.readers._sfm import Reconstruction, reconstruct
from vision3d.readers._source import find_roots, flag, list_images, one_root, parse_source
from vision3d.types import FrameTruth

FOLDER_NAMES = ("images", "rgb", "color", "frames")
UNPLACED = "structure from motion could not place this image among the others"


def matching(text: str) -> str:
    if text not in ("auto", "exhaustive", "sequential"):
        raise ValueError("say auto, exhaustive or sequential")
    return text


def poses(text: str) -> str:
    if text not in ("sfm", "none"):
        raise ValueError("say sfm or none")
    return text


OPTIONS = {**CAMERA_OPTIONS, "exif": flag, "matching": matching, "poses": poses}


class UnposedReader(FrameReader):
    """Frames without poses of their own.

    ``bad`` holds the images that structure from motion could not place, where their intrinsics depend on it; asking
    for it (like asking for a pose, or then for a frame) starts the reconstruction.

    Args:
        records: all images, in order; their cameras are left open.
        options: values of :data:`OPTIONS` that the source carries.
        beside: folders in which a ``camera.yaml`` or ``K.txt`` may lie.
        ordered: the images follow one another in time.
    """

    def __init__(
        self,
        name: str,
        records: Sequence[Record],
        config: DataConfig,
        options: Mapping[str, Any],
        beside: Iterable[Path],
        ordered: bool = False,
        notes: Iterable[str] = (),
    ) -> None:
        self._all, self._options, self._beside, self._ordered = tuple(records), options, tuple(beside), ordered
        self._sizes: dict[Path, tuple[int, int]] = {}
        self._given: dict[tuple[int, int], Camera | None] = {}
        self._sfm: Reconstruction | None = None
        self._all_bad: Mapping[int, str] | None = None
        if config.truth is None and options.get("poses") != "none":
            source = "no poses here: when they are needed they come from structure from motion (slow once, then cached)"
            notes = [*notes, f"{source} in a world of its own, of arbitrary scale"]
        super().__init__(name, records, config, notes)

    @property
    def bad(self) -> Mapping[int, str]:
        if self._all_bad is None:
            bad = dict(self._known_bad)
            for index, record in enumerate(self.records):
                unknown = index not in bad and self.given_camera(record.image) is None
                if unknown and record.image not in self._reconstruction().cameras:
                    bad[index] = f"{record.image}: {UNPLACED}"
            self._all_bad = bad
        return self._all_bad

    @bad.setter
    def bad(self, value: Mapping[int, str]) -> None:
        self._known_bad = value

    def truth(self, index: int) -> FrameTruth | None:
        """The pose in the reconstruction's own frame and scale; None for an image that it could not place."""
        if self.config.truth is not None:
            return super().truth(index)
        if self._options.get("poses") == "none":
            return None
        T = self._reconstruction().T_world_cam.get(self.records[index].image)
        return None if T is None else FrameTruth(T)

    def given_camera(self, image: Path) -> Camera | None:
        """Intrinsics that need no reconstruction, or None."""
        if image not in self._sizes:
            self._sizes[image] = image_size(image)
        size = self._sizes[image]
        if size not in self._given:
            camera = camera_from_options(self._options, size)
            for folder in self._beside:
                camera = camera or camera_beside(folder, size)
            if camera is None and self._options.get("exif"):
                focal = exif_focal_px(image, size)
                if focal is None:
                    raise DataError(image, "has no focal length in its EXIF data; give ?fov_deg= or ?K=")
                camera = camera_from_options({"K": (focal,)}, size)
                self.notes += (f"focal length {focal:.1f} px from EXIF: good to a few percent",)
            self._given[size] = camera
        return self._given[size]

    def _camera(self, index: int) -> Camera:
        record = self.records[index]
        camera = self.given_camera(record.image) or self._reconstruction().cameras.get(record.image)
        if camera is None:
            raise DataError(record.image, UNPLACED)
        return camera

    def _reconstruction(self) -> Reconstruction:
        if self._options.get("poses") == "none":
            raise DataError(self._beside[0], "poses=none needs intrinsics: give ?fov_deg= or ?K=, or put a K.txt there")
        if self._sfm is None:
            images = [record.image for record in self._all]
            known = [self.given_camera(image) for image in images]
            self._sfm = reconstruct(images, known, self._ordered, self._options.get("matching", "auto"))
            self.notes += self._sfm.notes
        return self._sfm


class ImagesReader(UnposedReader):
    """The images of a folder, sorted by name."""

    def __init__(self, source: str, config: DataConfig) -> None:
        _, options = parse_source(source, OPTIONS)
        require_split(config, "an image folder")
        root = _root(source) or one_root(source, _has_images, "images")
        records = [Record(path.name, path, stamp_ns=index) for index, path in enumerate(list_images(root))]
        named = root.name in FOLDER_NAMES
        beside = (root, root.parent) if named else (root,)
        super().__init__(root.parent.name if named else root.name, records, config, options, beside)


def _has_images(folder: Path) -> bool:
    return bool(list_images(folder))


def _root(source: str) -> Path | None:
    """The one folder with images at or below ``source``; one named ``images`` is preferred to depth or masks."""
    roots = find_roots(source, _has_images)
    named = [root for root in roots if root.name in FOLDER_NAMES]
    chosen = roots if len(roots) == 1 else named
    return chosen[0] if len(chosen) == 1 else None


def match(source: str) -> float:
    return 0.0 if _root(source) is None else 0.2


def check(source: str) -> list[str]:
    """Images that cannot be opened and calibration that does not fit; no reconstruction is run."""
    try:
        reader = ImagesReader(source, DataConfig(skip_bad=True))
    except (DataError, ConfigError) as error:
        return [str(error)]
    problems = []
    for record in reader.records:
        try:
            camera, size = reader.given_camera(record.image), image_size(record.image)
        except DataError as error:
            problems.append(str(error))
            continue
        if camera is not None and (camera.width, camera.height) != size:
            problems.append(
                f"{record.image}: image is {size[0]}x{size[1]} pixels but its calibration is for "
                f"{camera.width}x{camera.height}"
            )
    return list(dict.fromkeys(problems))


SPEC = ReaderSpec(
    name="images",
    summary="folder of images without poses; poses by structure from motion, intrinsics too unless given",
    samples="Frame",
    match=match,
    open=ImagesReader,
    check=check,
)
