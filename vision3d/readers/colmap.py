# SPDX-License-Identifier: Apache-2.0
"""A COLMAP model, binary or text, with its images. Pixels are moved by half: COLMAP's corner origin to our centre.

The model is looked for in the folder itself, ``sparse/0``, ``sparse``, ``model`` and in any one child folder; the
images in ``images``, ``rgb``, ``color`` beside it or above it, or where ``?images=FOLDER`` says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import DataError
from vision3d.geometry.cameras import Camera
from vision3d.geometry.se3 import invert
from vision3d.readers._common import FrameReader, Record, check_frames, require_split
from vision3d.readers._source import list_images, one_root, parse_source, score
from vision3d.types import Float

FRAME_NS = 1_000_000_000 // 30
IMAGE_FOLDERS = ("images", "rgb", "color", "colour", "imgs", "")


class Tracks(NamedTuple):
    """Points of a model and where frames see them, as flat arrays of M observations.

    Attributes:
        points_world: (P, 3).
        point: (M,) index into ``points_world``, ascending.
        frame: (M,) index into ``names``.
        uv_px: (M, 2) pixels of the delivered image, pixel centres at integers.
        names: the reader's keys, so that observations stay right when only some of its frames are used.
    """

    points_world: Float
    point: NDArray[np.int64]
    frame: NDArray[np.int64]
    uv_px: Float
    names: tuple[str, ...]


class ColmapReader(FrameReader):
    """The registered images of a model, sorted by name."""

    def __init__(self, source: str, config: DataConfig) -> None:
        _, options = parse_source(source, {"images": str})
        require_split(config, "a COLMAP model")
        root = one_root(source, _is_dataset, "COLMAP model (cameras, images and points3D, .bin or .txt)")
        folder = model_folder(root)
        assert folder is not None
        self._model = read_model(folder)
        ids = sorted(self._model.reg_image_ids(), key=lambda i: self._model.image(i).name)
        if not ids:
            raise DataError(folder, "the model has no registered image")
        names = [self._model.image(i).name for i in ids]
        images = _image_folder(root, folder, names, options.get("images"))
        cameras = {i: _camera(folder, camera) for i, camera in self._model.cameras.items()}
        records = []
        for index, (image_id, name) in enumerate(zip(ids, names)):
            image = self._model.image(image_id)
            problem = None if (images / name).is_file() else DataError(images / name, "no such image, but in the model")
            records.append(
                Record(
                    name, images / name, cameras[image.camera_id], world_from(image), index * FRAME_NS, problem=problem
                )
            )
        notes = ["a COLMAP model has no scale of its own: metres are metres only if it was aligned"]
        loose = len({path.name for path in list_images(images)} - {Path(name).name for name in names})
        if loose:
            notes.append(f"{loose} images in {images} are not part of the model")
        super().__init__(root.name, records, config, notes)
        self._ids = {record.name: image_id for record, image_id in zip(records, ids)}

    def tracks(self) -> Tracks:
        """The model's points that at least one of this reader's frames sees, with those observations."""
        frame_of = {self._ids[record.name]: index for index, record in enumerate(self.records)}
        scale, pixels = {}, {}
        for image_id, index in frame_of.items():
            stored, given = self._camera(index), self.camera(index)
            scale[image_id] = np.array([given.width / stored.width, given.height / stored.height])
            # One pass per image: asking the bindings for single points costs far more.
            pixels[image_id] = np.array([p.xy for p in self._model.image(image_id).points2D]).reshape(-1, 2)
        points: list[Float] = []
        point: list[int] = []
        frame: list[int] = []
        uv: list[Float] = []
        for point_id in sorted(self._model.point3D_ids()):
            item = self._model.point3D(point_id)
            seen = sorted((e.image_id, e.point2D_idx) for e in item.track.elements if e.image_id in frame_of)
            for image_id, at in seen:
                point.append(len(points))
                frame.append(frame_of[image_id])
                uv.append(pixels[image_id][at] * scale[image_id] - 0.5)
            if seen:
                points.append(item.xyz)
        return Tracks(
            np.array(points, dtype=np.float64).reshape(-1, 3),
            np.array(point, dtype=np.int64),
            np.array(frame, dtype=np.int64),
            np.array(uv, dtype=np.float64).reshape(-1, 2),
            tuple(record.name for record in self.records),
        )


def read_model(folder: Path) -> Any:
    """The ``pycolmap.Reconstruction`` in a folder; raises DataError when it is damaged."""
    import pycolmap

    try:
        return pycolmap.Reconstruction(str(folder))
    except Exception as error:  # the bindings raise several types, none of which name the file
        text = str(error).strip().splitlines()
        raise DataError(folder, f"is not a COLMAP model that can be read: {text[-1] if text else error!r}") from None


def world_from(image: Any) -> Float:
    """``T_world_cam`` (4, 4) of a registered ``pycolmap.Image``."""
    T = np.eye(4)
    T[:3] = image.cam_from_world().matrix()
    return invert(T)


def model_folder(root: Path) -> Path | None:
    """The folder of the model that belongs to ``root``, or None."""
    for sub in ("", "sparse/0", "sparse", "model"):
        if _is_model(root / sub):
            return root / sub
    found = [child for child in sorted(root.iterdir()) if child.is_dir() and _is_model(child)]
    return found[0] if len(found) == 1 else None


def _is_model(folder: Path) -> bool:
    return any(
        all((folder / f"{name}{suffix}").is_file() for name in ("cameras", "images", "points3D"))
        for suffix in (".bin", ".txt")
    )


def _is_dataset(folder: Path) -> bool:
    return model_folder(folder) is not None


def _camera(folder: Path, camera: Any) -> Camera:
    try:
        return Camera.from_colmap(camera)
    except ValueError as error:
        raise DataError(folder, f"{error}; undistort the images with COLMAP first") from None


def _image_folder(root: Path, model: Path, names: list[str], wanted: str | None) -> Path:
    """Where the images lie: the first usual place that holds any of them."""
    if wanted is not None:
        places = [root / wanted]
    else:
        # A model in sparse/0 keeps its images two folders up; nothing is looked for outside root and its parents.
        above = [root, *model.parents[:2]] if model == root else [root, model.parent, model]
        places = [base / sub for base in above for sub in IMAGE_FOLDERS]
    for place in places:
        if any((place / name).is_file() for name in names[:: max(len(names) // 10, 1)]):
            return place
    tried = ", ".join(dict.fromkeys(str(p) for p in places[:3]))
    raise DataError(model, f"images of the model, e.g. {names[0]}, are not in {tried}; give ?images=FOLDER")


def match(source: str) -> float:
    return score(source, _is_dataset, 0.9)


def check(source: str) -> list[str]:
    return check_frames(ColmapReader, source)


SPEC = ReaderSpec(
    name="colmap",
    summary="COLMAP model (binary or text) with its images folder; brings its own tracks",
    samples="Frame",
    match=match,
    open=ColmapReader,
    card="colmap",
    check=check,
)
