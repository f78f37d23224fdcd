# SPDX-License-Identifier: Apache-2.0
"""A video file: every N-th frame becomes an image, then all goes as for a folder of images.

``clip.mp4?every=10`` takes every tenth frame; by default about three per second, at least 60 and at most 150 in all.
Intrinsics may be given as for images (``?fov_deg=``, ``?K=``, or a ``camera.yaml`` or ``K.txt`` beside the file).
Chosen frames are decoded once and kept in the cache as JPEG, because seeking in a video is slow and not exact.
"""

from __future__ import annotations

import json
from pathlib import Path

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.readers._cache import cached_folder, content_key
from vision3d.readers._common import Record, require_split
from vision3d.readers._intrinsics import CAMERA_OPTIONS
from vision3d.readers._source import bounded, list_images, parse_source, split_source
from vision3d.readers.images import UnposedReader, matching, poses

SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"}
PER_SECOND, AT_LEAST, AT_MOST = 3.0, 60, 150
JPEG_QUALITY = 95
OPTIONS = {**CAMERA_OPTIONS, "matching": matching, "poses": poses, "every": bounded(int, 1, 1_000_000)}


class VideoReader(UnposedReader):
    """The chosen frames of a video in order of time."""

    def __init__(self, source: str, config: DataConfig) -> None:
        path, options = parse_source(source, OPTIONS)
        require_split(config, "a video")
        file = Path(path)
        if not file.is_file():
            raise DataError(file, "no such file")
        every = options.get("every", 0)
        folder = cached_folder(
            "video", content_key([file], every, JPEG_QUALITY), lambda out: _extract(file, every, out)
        )
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        records = []
        for image in list_images(folder):
            number = int(image.stem.split("-")[1])
            records.append(Record(image.stem, image, stamp_ns=round(number * 1e9 / facts["fps"])))
        notes = [f"{len(records)} of {facts['frames']} frames are used, every {facts['every']}"]
        if facts["frames"] < facts["announced"]:
            notes.append(f"{file.name} announces {facts['announced']} frames but only {facts['frames']} can be decoded")
        super().__init__(file.stem, records, config, options, (file.parent,), ordered=True, notes=notes)


def automatic_step(frames: int, fps: float) -> int:
    """Every how many frames one is taken: about :data:`PER_SECOND`, within the limits on their number."""
    wanted = min(max(frames / fps * PER_SECOND, AT_LEAST), AT_MOST)
    return max(int(frames / wanted), 1)


def _extract(file: Path, every: int, out: Path) -> None:
    """Write the chosen frames and ``facts.json`` into ``out``."""
    import cv2

    video = cv2.VideoCapture(str(file))
    try:
        if not video.isOpened():
            raise DataError(file, "is not a video that can be read (damaged, truncated or an unknown codec)")
        announced = max(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        fps = video.get(cv2.CAP_PROP_FPS)
        fps = fps if 1 <= fps <= 1000 else 30.0
        step = every or automatic_step(announced, fps)
        decoded = 0
        while video.grab():
            if decoded % step == 0:
                good, image = video.retrieve()
                if not good or image is None:
                    break
                target = out / f"frame-{decoded:06d}.jpg"
                if not cv2.imwrite(str(target), image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
                    raise DataError(target, "cannot be written (is the cache's disk full?)")
            decoded += 1
    finally:
        video.release()
    if not decoded:
        raise DataError(file, "holds no frame that can be decoded")
    facts = {"frames": decoded, "announced": announced, "fps": fps, "every": step}
    (out / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def match(source: str) -> float:
    path = Path(split_source(source)[0])
    return 0.9 if path.suffix.lower() in SUFFIXES and path.is_file() else 0.0


def check(source: str) -> list[str]:
    try:
        VideoReader(source, DataConfig())
    except (DataError, ConfigError) as error:
        return [str(error)]
    return []


SPEC = ReaderSpec(
    name="video",
    summary="video file; every N-th frame (?every=N), poses by structure from motion",
    samples="Frame",
    match=match,
    open=VideoReader,
    check=check,
)
