# SPDX-License-Identifier: Apache-2.0
"""``transforms.json`` of nerfstudio and instant-ngp: poses with OpenGL camera axes, intrinsics global or per frame.

Camera axes are turned to OpenCV's (y and z change sign); ``?axes=opencv`` is for files that hold OpenCV axes already.
The world stays the file's own (``applied_transform`` moved it before writing, which changes nothing here), and so does
its scale. Principal points count from the image's corner, as COLMAP's do, and are moved by half a pixel.
Splits: ``train_filenames``, ``val_filenames``, ``test_filenames`` in the file, or one file per split
(``transforms_train.json``).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.geometry.cameras import Camera
from vision3d.readers._common import FrameReader, Record, check_frames, pose_or_problem
from vision3d.readers._images import image_size
from vision3d.readers._poses import read_text
from vision3d.readers._source import IMAGE_SUFFIXES, find_roots, one_root, parse_source, score, split_source

FRAME_NS = 1_000_000_000 // 30
OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
PINHOLE_LIKE = {"OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE"}


def _axes(text: str) -> str:
    if text not in ("opengl", "opencv"):
        raise ValueError("say opengl or opencv")
    return text


class TransformsReader(FrameReader):
    """Frames sorted by file path."""

    def __init__(self, source: str, config: DataConfig) -> None:
        path, options = parse_source(source, {"axes": _axes})
        file = _find_file(path, config.split)
        data = _load(file)
        turn = np.eye(4) if options.get("axes") == "opencv" else OPENCV_FROM_OPENGL
        frames = _of_split(file, data, config.split)
        records = [_record(file, data, frame, number, turn) for number, frame in enumerate(frames)]
        records.sort(key=lambda record: record.name)
        records = [Record(**{**vars(r), "stamp_ns": i * FRAME_NS}) for i, r in enumerate(records)]
        notes = ["the scale of transforms.json is its author's: metres are metres only if it was metric"]
        super().__init__(file.parent.name, records, config, notes)


def _find_file(path: str, split: str) -> Path:
    """The JSON file for a split below ``path``, which may be the file itself."""
    if path.endswith(".json"):
        return Path(path)
    root = one_root(path, _has_file, "transforms.json")
    own = root / f"transforms_{split}.json"
    if own.is_file():
        return own
    if not (root / "transforms.json").is_file():
        found = ", ".join(sorted(p.stem.removeprefix("transforms_") for p in root.glob("transforms_*.json")))
        raise ConfigError(f"{root} has the splits {found}, not '{split}'")
    return root / "transforms.json"


def _load(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise DataError(file, f"is not JSON: line {error.lineno}: {error.msg}") from None
    if not isinstance(data, dict) or not isinstance(data.get("frames"), list) or not data["frames"]:
        raise DataError(file, "must hold a non-empty list 'frames'")
    return data


def _of_split(file: Path, data: dict[str, Any], split: str) -> list[Any]:
    frames: list[Any] = data["frames"]
    if split == "all" or file.stem == f"transforms_{split}":
        return frames
    key = f"{split}_filenames"
    if key not in data:
        known = ", ".join(sorted(k.removesuffix("_filenames") for k in data if k.endswith("_filenames"))) or "none"
        raise ConfigError(f"{file} defines no split '{split}' (it has: {known}): use 'all' and select, e.g. '::2'")
    wanted = set(data[key])
    chosen = [frame for frame in frames if isinstance(frame, dict) and frame.get("file_path") in wanted]
    if len(chosen) < len(wanted):
        missing = sorted(wanted - {frame["file_path"] for frame in chosen})
        raise DataError(file, f"'{key}' names {missing[0]}, which is not among the frames")
    return chosen


def _record(file: Path, data: dict[str, Any], frame: Any, number: int, turn: np.ndarray) -> Record:
    if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
        raise DataError(file, f"frames[{number}] has no 'file_path'")
    name = frame["file_path"].removeprefix("./")
    image = _with_suffix(file.parent / name)
    try:
        matrix = np.array(frame["transform_matrix"], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        raise DataError(file, f"frames[{number}] ({name}) has no 4x4 'transform_matrix'") from None
    if matrix.shape == (3, 4):
        matrix = np.concatenate([matrix, [[0.0, 0.0, 0.0, 1.0]]])
    T, problem = pose_or_problem(matrix, file, f"frames[{number}] ({name})")
    camera = None
    if not image.is_file():
        problem = DataError(image, f"no such image, but {file.name} names it")
    else:
        camera = _camera(file, {**data, **frame}, image)
    depth = frame.get("depth_file_path")
    return Record(
        name,
        image,
        camera,
        None if T is None else T @ turn,
        depth=None if depth is None else file.parent / depth,
        problem=problem,
    )


def _camera(file: Path, values: dict[str, Any], image: Path) -> Camera:
    """From the keys of a frame, which override those of the file."""
    model = str(values.get("camera_model", "OPENCV")).upper()
    if model not in PINHOLE_LIKE:
        raise DataError(file, f"camera_model '{model}' is not supported: undistort the images first")

    def number(key: str, default: float = 0.0) -> float:
        value = values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise DataError(file, f"'{key}' must be a number, found {value!r}")
        return float(value)

    if "w" in values and "h" in values:
        width, height = round(number("w")), round(number("h"))
    else:
        width, height = image_size(image)
    if "fl_x" in values:
        fx = number("fl_x")
        fy = number("fl_y", fx)
    elif "camera_angle_x" in values:
        fx = 0.5 * width / math.tan(0.5 * number("camera_angle_x"))
        fy = 0.5 * height / math.tan(0.5 * number("camera_angle_y")) if "camera_angle_y" in values else fx
    else:
        raise DataError(file, f"neither 'fl_x' nor 'camera_angle_x' for {image.name}")
    center = number("cx", width / 2) - 0.5, number("cy", height / 2) - 0.5
    k1, k2, k3, k4, p1, p2 = (number(key) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    if k4:
        raise DataError(file, f"distortion k4 = {k4:g} (8th power of the radius) is not supported")
    try:
        if k3:
            return Camera("FULL_OPENCV", width, height, (fx, fy, *center, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0))
        if any((k1, k2, p1, p2)):
            return Camera("OPENCV", width, height, (fx, fy, *center, k1, k2, p1, p2))
        return Camera("PINHOLE", width, height, (fx, fy, *center))
    except ValueError as error:
        raise DataError(file, f"{image.name}: {error}") from None


def _with_suffix(path: Path) -> Path:
    """The image, also where the file leaves its suffix out."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return path
    for suffix in (".png", ".jpg", ".jpeg", ".PNG", ".JPG"):
        if path.with_name(path.name + suffix).is_file():
            return path.with_name(path.name + suffix)
    return path.with_name(path.name + ".png")


def _has_file(folder: Path) -> bool:
    return (folder / "transforms.json").is_file() or (folder / "transforms_train.json").is_file()


def match(source: str) -> float:
    path = Path(split_source(source)[0])
    if path.suffix == ".json":
        return 0.8 if path.name.startswith("transforms") and path.is_file() else 0.0
    return score(source, _has_file, 0.92)


def check(source: str) -> list[str]:
    roots = find_roots(source, _has_file)
    if len(roots) == 1 and not (roots[0] / "transforms.json").is_file():
        files = sorted(roots[0].glob("transforms_*.json"))
        return [problem for file in files for problem in check_frames(TransformsReader, str(file))]
    return check_frames(TransformsReader, source)


SPEC = ReaderSpec(
    name="transforms",
    summary="transforms.json of nerfstudio or instant-ngp, OpenGL camera axes, per-frame intrinsics",
    samples="Frame",
    match=match,
    open=TransformsReader,
    card="transforms",
    check=check,
)
