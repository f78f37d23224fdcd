# SPDX-License-Identifier: Apache-2.0
"""A plain folder of posed images: ``images/``, ``poses.txt``, ``K.txt``, and if there is one ``depth/``.

``poses.txt`` holds 16 numbers per line, a row-major camera-to-world matrix (OpenCV axes, metres), one line per image
in the order of the sorted file names. ``K.txt`` holds the 3x3 intrinsic matrix, pixel centres at integers; a
``camera.yaml`` (model, width, height, params) takes its place where there is distortion. Depth files are 16-bit PNG
in millimetres, registered, named like the images. Open3D's layout is read too: ``color/``, ``depth/``,
``trajectory.log`` (blocks of a line with indices and four lines of a camera-to-world matrix) and
``camera_primesense.json`` in the folder or above it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import DataError
from vision3d.geometry.cameras import Camera
from vision3d.readers._common import FrameReader, Record, check_frames, pose_or_problem, require_split
from vision3d.readers._images import image_size
from vision3d.readers._intrinsics import camera_beside
from vision3d.readers._poses import numbered_fields, numbers_of, read_text
from vision3d.readers._source import list_images, one_root, parse_source, score
from vision3d.types import Float

FRAME_NS = 1_000_000_000 // 30


class PosedReader(FrameReader):
    """Frames of one folder in the order of their names."""

    def __init__(self, source: str, config: DataConfig) -> None:
        parse_source(source, {})
        require_split(config, "a posed folder")
        root = one_root(source, _is_posed, "posed images (images/ with poses.txt, or color/ with trajectory.log)")
        plain = (root / "poses.txt").is_file()
        file = root / ("poses.txt" if plain else "trajectory.log")
        images = list_images(root / ("images" if plain else "color"))
        if not images:
            raise DataError(root / ("images" if plain else "color"), "holds no images")
        matrices = list(_matrices(file, words_per_line=16 if plain else 4))
        if len(images) != len(matrices):
            raise DataError(file, f"holds {len(matrices)} poses for {len(images)} images in {images[0].parent.name}/")
        size = image_size(images[0])
        camera = camera_beside(root, size) or _primesense(root)
        if camera is None:
            raise DataError(root / "K.txt", "no such file: write the 3x3 intrinsic matrix into it (or a camera.yaml)")
        records = []
        for index, (image, (line, matrix)) in enumerate(zip(images, matrices)):
            T, problem = pose_or_problem(matrix, file, f"line {line}")
            path = root / "depth" / f"{image.stem}.png"
            depth = path if path.is_file() else None
            records.append(Record(image.name, image, camera, T, index * FRAME_NS, depth, problem=problem))
        super().__init__(root.name, records, config)


def _matrices(path: Path, words_per_line: int) -> Iterator[tuple[int, Float]]:
    """(line, (4, 4)): one line of 16 numbers each, or blocks of an index line and four lines of 4."""
    rows: list[list[float]] = []
    for number, fields in numbered_fields(path):
        if words_per_line == 4 and not rows and len(fields) == 3:
            continue  # the three indices that open a block
        values = numbers_of(fields, path, number)
        if len(values) != words_per_line:
            raise DataError(path, f"line {number}: expected {words_per_line} numbers, found {len(values)}")
        rows.append(values)
        if len(rows) * words_per_line == 16:
            yield number, np.reshape(rows, (4, 4))
            rows = []
    if rows:
        raise DataError(path, "ends in the middle of a matrix")


def _primesense(root: Path) -> Camera | None:
    """Open3D's intrinsics (column-major 3x3) from the folder or the one above it."""
    for path in (root / "camera_primesense.json", root.parent / "camera_primesense.json"):
        if path.is_file():
            try:
                data = json.loads(read_text(path))
                K = np.array(data["intrinsic_matrix"], dtype=np.float64).reshape(3, 3).T
                return Camera.pinhole(int(data["width"]), int(data["height"]), K)
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(path, f"must hold width, height and intrinsic_matrix (9 numbers): {error}") from None
    return None


def _is_posed(folder: Path) -> bool:
    plain = (folder / "poses.txt").is_file() and (folder / "images").is_dir()
    return plain or ((folder / "trajectory.log").is_file() and (folder / "color").is_dir())


def match(source: str) -> float:
    return score(source, _is_posed, 0.9)


def check(source: str) -> list[str]:
    return check_frames(PosedReader, source)


SPEC = ReaderSpec(
    name="posed",
    summary="folder with images/, poses.txt (16 numbers per line, camera to world) and K.txt",
    samples="Frame",
    match=match,
    open=PosedReader,
    check=check,
)
