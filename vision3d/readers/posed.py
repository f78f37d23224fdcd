# SPDX-License-Identifier: Apache-2.0
"""A plain folder of posed images: ``images/``, ``poses.txt``, ``K.txt``, and if there is one ``depth/``.

``poses.txt`` holds 16 numbers per line, a row-major camera-to-world matrix (OpenCV axes, metres), one line per image
in the order of the sorted file names. ``K.txt`` holds the 3x3 intrinsic matrix, pixel centres at integers; a
``camera.yaml`` (model, width, height, params) takes its place where there is distortion. Depth files are 16-bit PNG
in millimetres, registered, named like the images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import DataError
from vision3d.readers._common import FrameReader, Record, check_frames, pose_or_problem, require_split
from vision3d.readers._images import image_size
from vision3d.readers._intrinsics import camera_beside
from vision3d.readers._poses import numbered_fields, numbers_of
from vision3d.readers._source import list_images, one_root, parse_source, score

FRAME_NS = 1_000_000_000 // 30


class PosedReader(FrameReader):
    """Frames of one folder in the order of their names."""

    def __init__(self, source: str, config: DataConfig) -> None:
        parse_source(source, {})
        require_split(config, "a posed folder")
        root = one_root(source, _is_posed, "posed images (a folder images/ and a file poses.txt)")
        images = list_images(root / "images")
        lines = list(numbered_fields(root / "poses.txt"))
        if len(images) != len(lines):
            raise DataError(
                root / "poses.txt", f"holds {len(lines)} poses for {len(images)} images in {root / 'images'}"
            )
        if not images:
            raise DataError(root / "images", "holds no images")
        camera = camera_beside(root, image_size(images[0]))
        if camera is None:
            raise DataError(root / "K.txt", "no such file: write the 3x3 intrinsic matrix into it (or a camera.yaml)")
        records = []
        for index, (image, (line, fields)) in enumerate(zip(images, lines)):
            numbers = numbers_of(fields, root / "poses.txt", line)
            if len(numbers) != 16:
                raise DataError(root / "poses.txt", f"line {line}: expected 16 numbers, found {len(numbers)}")
            T, problem = pose_or_problem(np.reshape(numbers, (4, 4)), root / "poses.txt", f"line {line}")
            depth = root / "depth" / f"{image.stem}.png"
            records.append(
                Record(
                    image.name, image, camera, T, index * FRAME_NS, depth if depth.is_file() else None, problem=problem
                )
            )
        super().__init__(root.name, records, config)


def _is_posed(folder: Path) -> bool:
    return (folder / "poses.txt").is_file() and (folder / "images").is_dir()


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
