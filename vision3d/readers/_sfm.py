# SPDX-License-Identifier: Apache-2.0
"""Poses and intrinsics of plain images by pycolmap's structure from motion, seeded and cached by content.

All images of a folder are reconstructed together, whatever part of them a reader selects: maps and queries taken from
one folder must share a world frame.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision3d.errors import DataError
from vision3d.geometry.cameras import Camera
from vision3d.readers import _images
from vision3d.readers._cache import cached_folder, content_key
from vision3d.readers._intrinsics import exif_focal_px
from vision3d.types import Float

log = logging.getLogger(__name__)

LONGEST_SIDE = 1600  # SIFT gains nothing beyond, and time grows with the area
EXHAUSTIVE_UP_TO = 80  # images; pairs grow with the square
ORDERED_UP_TO = 30  # images of a sequence, whose neighbours are known, and with many features each
MANY_FEATURES, FEW_FEATURES = 4096, 2048  # matching time grows with the square
OVERLAP = 8  # neighbours on either side in sequential matching; farther ones at powers of two
VERSION = 1  # part of the cache key: raise it when settings below change


@dataclass(frozen=True)
class Reconstruction:
    """Image file -> ``T_world_cam`` and camera (at the stored image size); ``notes`` for the user."""

    T_world_cam: Mapping[Path, Float]
    cameras: Mapping[Path, Camera]
    notes: tuple[str, ...]


def reconstruct(images: Sequence[Path], known: Sequence[Camera | None], ordered: bool, matching: str) -> Reconstruction:
    """The largest reconstruction of ``images``, from the cache if they were reconstructed before.

    Args:
        images: files; images of one size are taken to come from one camera.
        known: per image intrinsics to be kept as they are, or None to estimate them.
        ordered: the images are a sequence, as from a video.
        matching: ``auto``, ``exhaustive`` or ``sequential``.

    Raises:
        DataError: fewer than three images, an unreadable one, or nothing could be reconstructed.
    """
    import pycolmap

    folder = images[0].parent
    if len(images) < 3:
        raise DataError(folder, f"holds {len(images)} images: at least 3 are needed to find poses, and more are better")
    if matching == "auto":
        limit = ORDERED_UP_TO if ordered else EXHAUSTIVE_UP_TO
        matching = "exhaustive" if len(images) <= limit else "sequential"
    settings = (VERSION, pycolmap.__version__, LONGEST_SIDE, matching, ordered, list(known))
    key = content_key(images, *settings)
    done = cached_folder("sfm", key, lambda out: _run(images, known, matching, out))
    notes = []
    if matching == "sequential" and not ordered:
        notes.append(
            f"{len(images)} images: only neighbours by name were matched; ?matching=exhaustive tries all pairs"
        )
    model = pycolmap.Reconstruction(str(done / "model"))
    poses, cameras = {}, {}
    # Copies are numbered, so that no name is too strange for COLMAP's text files.
    for image_id in sorted(model.reg_image_ids()):
        image = model.image(image_id)
        source = images[int(Path(image.name).stem)]
        poses[source] = _pose(image)
        camera = Camera.from_colmap(model.camera(image.camera_id))
        cameras[source] = camera.resized(*_images.image_size(source))
    if len(poses) < len(images):
        notes.append(f"structure from motion placed {len(poses)} of {len(images)} images")
    return Reconstruction(poses, cameras, tuple(notes))


def _pose(image: Any) -> Float:
    from vision3d.readers.colmap import world_from

    return world_from(image)


def _run(images: Sequence[Path], known: Sequence[Camera | None], matching: str, out: Path) -> None:
    import pycolmap

    log.info("structure from motion on %d images in %s (cached afterwards)", len(images), images[0].parent)
    small = out / "images"
    small.mkdir()
    groups: dict[tuple[int, int], list[int]] = {}
    for index, path in enumerate(images):
        image = _images.read_image(path)
        height, width = image.shape[:2]
        groups.setdefault((width, height), []).append(index)
        _write(small / f"{index:06d}.png", image)
    database = out / "database.db"
    with _quiet(pycolmap):
        pycolmap.set_random_seed(0)
        pycolmap.Database.open(str(database)).close()
        for (width, height), members in groups.items():
            options = _reader_options(pycolmap, images[members[0]], known[members[0]], (width, height))
            names = [f"{index:06d}.png" for index in members]
            # Importing first fixes the images' ids; extraction alone hands them out in the order of finishing.
            pycolmap.import_images(str(database), str(small), pycolmap.CameraMode.SINGLE, names, options)
        extraction = pycolmap.FeatureExtractionOptions()
        extraction.sift.max_num_features = MANY_FEATURES if len(images) <= ORDERED_UP_TO else FEW_FEATURES
        extraction.use_gpu = False
        pycolmap.extract_features(str(database), str(small), extraction_options=extraction)
        _match(pycolmap, str(database), matching)
        models = _map(pycolmap, database, small, out, keep=[camera is not None for camera in known])
    if not models:
        raise DataError(
            images[0].parent,
            "no poses could be found for these images (too little overlap or texture); "
            "if only intrinsics are needed give ?fov_deg= or ?K=, or put a K.txt beside them",
        )
    best = max(models.values(), key=lambda model: (model.num_reg_images(), model.num_points3D()))
    (out / "model").mkdir()
    best.write_binary(str(out / "model"))
    for path in (*small.iterdir(), database):
        path.unlink()
    small.rmdir()


def _reader_options(pycolmap: Any, image: Path, camera: Camera | None, size: tuple[int, int]) -> Any:
    options = pycolmap.ImageReaderOptions()
    small = _images.fitted_size(*size, LONGEST_SIDE)
    if camera is None:
        focal = exif_focal_px(image, size)
        if focal is None:
            return options
        camera = Camera("SIMPLE_RADIAL", *size, (focal, (size[0] - 1) / 2, (size[1] - 1) / 2, 0.0))
    colmap = camera.resized(*small).to_colmap()
    options.camera_model = colmap.model.name
    options.camera_params = ",".join(repr(float(p)) for p in colmap.params)
    return options


def _match(pycolmap: Any, database: str, matching: str) -> None:
    features = pycolmap.FeatureMatchingOptions()
    features.use_gpu = False
    geometry = pycolmap.TwoViewGeometryOptions()
    geometry.ransac.random_seed = 0
    if matching == "exhaustive":
        pycolmap.match_exhaustive(database, matching_options=features, verification_options=geometry)
    else:
        pairs = pycolmap.SequentialPairingOptions()
        pairs.overlap = OVERLAP
        pycolmap.match_sequential(
            database, matching_options=features, pairing_options=pairs, verification_options=geometry
        )


def _map(pycolmap: Any, database: Path, small: Path, out: Path, keep: list[bool]) -> Mapping[int, Any]:
    options = pycolmap.IncrementalPipelineOptions()
    options.min_model_size = 3
    options.extract_colors = False
    # One thread: sums in another order would give other last digits.
    options.num_threads = options.mapper.num_threads = 1
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = 0
    if all(keep):
        options.ba_refine_focal_length = options.ba_refine_extra_params = False
        options.mapper.abs_pose_refine_focal_length = options.mapper.abs_pose_refine_extra_params = False
    models = out / "models"
    models.mkdir()
    found: Mapping[int, Any] = pycolmap.incremental_mapping(str(database), str(small), str(models), options)
    for path in sorted(models.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    models.rmdir()
    return found


def _write(path: Path, image: Any) -> None:
    import cv2

    height, width = image.shape[:2]
    size = _images.fitted_size(width, height, LONGEST_SIDE)
    if size != (width, height):
        image = _images.resize_image(image, *size)
    if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1]):
        raise DataError(path, "cannot be written (is the cache's disk full?)")


@contextmanager
def _quiet(pycolmap: Any) -> Iterator[None]:
    """COLMAP reports every step on stderr; only its errors are for the user."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.Level.ERROR.value
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level
