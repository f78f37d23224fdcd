# SPDX-License-Identifier: Apache-2.0
"""Anybody's point clouds: two files, a folder of scans, or files that hold pairs.

- ``A::B``: two files are one pair;
- a folder of scans of one format: each scan and the next are a pair, in order of names (numbers count as numbers);
  ``?step=2`` pairs each with the one after the next;
- a folder of ``NAME_source.X`` and ``NAME_target.X`` (what ``vision3d convert`` writes), with flow in the PLY files or
  in ``NAME_flow.bin``;
- an ``.npz`` file or a folder of them with two clouds each: ``source, target``, ``pc1, pc2``, ``points1, points2`` or
  ``pos1, pos2``, and where there is truth ``flow`` or ``gt``, ``valid``, and our own extras (see the npz writer).

Formats: ``.bin`` (float32; 4 columns, 5 for ``.pcd.bin``), ``.pcd``, ``.ply``, ``.npy``, ``.npz``, ``.xyz``, ``.txt``,
``.csv``, ``.feather``. Rows keep their order and number. Options after '?':

- ``axes=lidar|camera``: what x, y, z are; lidar (x forward, y left, z up) unless the file says otherwise;
- ``dt=0.1``: seconds between scans; else the difference of names that end in a time, else 0.1;
- ``scale=0.001``: metres per unit of points and flow; ``columns=N``: float32 numbers per point of a ``.bin``;
- ``poses=FILE``: the sensor's pose in the world per scan (12, 16 or 8 numbers a line): its motion is then known.
  With KITTI odometry, whose poses are the camera's, add ``calib=calib.txt``;
- ``drop_nan=1``: leave out points that are not finite. This changes the number of rows: row i of a result is then row i
  of what is left. Without it such a file is an error;
- ``suffix=.ply``: which scans to read where a folder holds several formats.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import DataError
from vision3d.geometry.se3 import invert
from vision3d.readers._cloud_arrays import pair_from_arrays, pair_names, truth_from_arrays
from vision3d.readers._cloud_files import KNOWN, SCANS, CloudFormat, read_cloud, read_columns
from vision3d.readers._cloud_poses import motion_between, read_scan_poses, read_velodyne_calibration
from vision3d.readers._common import require_split
from vision3d.readers._flow_h5 import nanoseconds, seconds_between
from vision3d.readers._flow_pairs import PairReader, PairRecord, Truth, array_names, check_pairs, load_arrays
from vision3d.readers._source import bounded, flag, one_root, parse_source, score, split_source
from vision3d.types.clouds import Axes, CloudPair, FlowTruth


def _axes(text: str) -> str:
    if text not in ("lidar", "camera"):
        raise ValueError("say lidar or camera")
    return text


def _suffix(text: str) -> str:
    suffix = "." + text.lower().lstrip(".")
    if suffix not in KNOWN:
        raise ValueError(f"known: {', '.join(KNOWN)}")
    return suffix


OPTIONS = {
    "axes": _axes,
    "dt": bounded(float, 1e-6, 1e4),
    "scale": bounded(float, 1e-9, 1e9),
    "columns": bounded(int, 3, 64),
    "poses": Path,
    "calib": Path,
    "drop_nan": flag,
    "step": bounded(int, 1, 10_000),
    "suffix": _suffix,
}


class CloudsReader(PairReader):
    """Pairs of the files that the source names."""

    def __init__(self, source: str, config: DataConfig) -> None:
        path, options = parse_source(source, OPTIONS)
        if "::" in path:
            path = path.removeprefix("clouds:")  # `clouds:A::B` comes whole, because there is no such file
        require_split(config, "a folder of scans")
        self.form = CloudFormat(options.get("columns", 0), options.get("scale", 1.0), options.get("drop_nan", False))
        self.axes = cast("Axes | None", options.get("axes"))
        self.dt_s: float | None = options.get("dt")
        poses: dict[Path, NDArray[np.float64]] = {}
        if "::" in path and not Path(path).exists():
            parts = [Path(part) for part in path.split("::")]
            if len(parts) != 2:
                raise DataError(path, "two files make a pair: A::B")
            name, scans, records = _stem(parts[0]), parts, [_pair_record(_stem(parts[0]), *parts)]
        elif Path(path).is_file():
            file = Path(path)
            if file.suffix.lower() != ".npz":
                raise DataError(file, f"is one cloud; give two ({file}::OTHER) or the folder of scans")
            name, scans, records = file.stem, [], [PairRecord(file.stem, (file,))]
        else:
            suffixes = (options["suffix"],) if "suffix" in options else SCANS
            wanted = f"folder of two or more scans ({', '.join(suffixes)}) or of pairs"
            root = one_root(path, lambda folder: _holds_pairs(folder, suffixes), wanted)
            name = root.absolute().name
            scans, records = _folder(root, suffixes, options.get("step", 1))
        if "poses" in options:
            if not scans:
                raise DataError(options["poses"], "poses go with scans; a file that holds a pair holds its motion, too")
            T_world = read_scan_poses(options["poses"], len(scans))
            if "calib" in options:
                T_camera_lidar = read_velodyne_calibration(options["calib"])
                T_world = invert(T_camera_lidar) @ T_world @ T_camera_lidar
            poses = dict(zip(scans, T_world))
        elif "calib" in options:
            raise DataError(options["calib"], "is of use with ?poses= only")
        self.poses = poses
        super().__init__(name, records, config)

    def _read(self, record: PairRecord) -> tuple[CloudPair, Truth]:
        if len(record.files) == 1:
            arrays = load_arrays(record.files[0])
            pair, truth = pair_from_arrays(arrays, record.files[0], record.name, self.form, self.axes, self.dt_s)
            return pair, lambda: truth
        first, second = record.files[:2]
        source, kept = read_cloud(first, self.form)
        target, _ = read_cloud(second, self.form)
        T = motion_between(self.poses[first], self.poses[second]) if self.poses else None
        stamp_ns, next_ns = _stamp_ns(first), _stamp_ns(second)
        dt_s = self.dt_s or seconds_between(stamp_ns, next_ns)
        pair = CloudPair(record.name, source, target, self.axes or "lidar", dt_s, T, stamp_ns=stamp_ns)

        def truth_beside() -> FlowTruth | None:
            arrays = _flow_beside(first, record.files[2:])
            return truth_from_arrays(arrays, (*record.files[2:], first)[0], pair, kept, self.form.scale)

        return pair, truth_beside


def _flow_beside(first: Path, extra: tuple[Path, ...]) -> dict[str, Any]:
    """Truth that lies with a pair of scans: properties of the source's PLY, or a file of flow and validity."""
    if extra:
        data = np.frombuffer(extra[0].read_bytes(), dtype="<f4")
        if data.size % 4:
            raise DataError(extra[0], "must hold four float32 per point: flow x, y, z and validity")
        table = data.reshape(-1, 4)
        return {"flow": table[:, :3], "valid": table[:, 3]}
    columns = read_columns(first, CloudFormat()) if first.suffix.lower() == ".ply" else {}
    if not {"flow_x", "flow_y", "flow_z"} <= set(columns):
        return {}
    names = ("valid", "dynamic", "ground")
    arrays: dict[str, NDArray[Any]] = {key: columns[key] for key in names if key in columns}
    if "flow_class" in columns:
        arrays["classes"] = columns["flow_class"].astype(np.uint8)
    return arrays | {"flow": np.stack([columns[f"flow_{axis}"] for axis in "xyz"], axis=1)}


def _folder(root: Path, suffixes: tuple[str, ...], step: int) -> tuple[list[Path], list[PairRecord]]:
    """The scans (none when files hold pairs) and the pairs of a folder."""
    files = _scan_files(root, suffixes)
    found = sorted({path.suffix.lower() for path in files})
    if len(found) > 1:
        raise DataError(root, f"holds scans of several formats ({', '.join(found)}); choose with ?suffix={found[0]}")
    if found == [".npz"] and _npz_pair(files[0]):
        return [], [PairRecord(path.stem, (path,)) for path in files]
    named = {path.name: path for path in files}
    sources = [path for path in files if _stem(path).endswith("_source")]
    if sources:
        records = []
        for path in sources:
            name = _stem(path).removesuffix("_source")
            target = named.get(path.name.replace("_source", "_target"))
            if target is None:
                raise DataError(path, f"has no {path.name.replace('_source', '_target')} beside it")
            flow = named.get(f"{name}_flow.bin")
            records.append(_pair_record(name, path, target, *([flow] if flow else [])))
        return [], records
    if len(files) <= step:
        raise DataError(root, f"holds {len(files)} scans: a pair {step} apart needs {step + 1}")
    return files, [_pair_record(_stem(a), a, b) for a, b in zip(files, files[step:])]


def _pair_record(name: str, *files: Path) -> PairRecord:
    missing = next((path for path in files if not path.is_file()), None)
    problem = None if missing is None else DataError(missing, "no such file")
    return PairRecord(name, files, problem=problem)


def _scan_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Scans directly in the folder; numbers in names count as numbers. Hidden files are left out."""
    files = [p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith(".") and p.is_file()]
    return sorted(files, key=lambda p: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", p.name)])


def _stem(path: Path) -> str:
    """The name without ``.pcd.bin`` or its one suffix."""
    return path.name[: -len(".pcd.bin")] if path.name.lower().endswith(".pcd.bin") else path.stem


def _stamp_ns(path: Path) -> int:
    """The sensor's time where the name ends in one, as those of Argoverse 2 and nuScenes do; else 0."""
    found = re.search(r"(?<!\d)\d{16,19}$", _stem(path))
    return nanoseconds(int(found[0])) if found else 0


def _npz_pair(path: Path) -> bool:
    return pair_names(array_names(path)) is not None


def _holds_pairs(folder: Path, suffixes: tuple[str, ...] = SCANS) -> bool:
    scans = (p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))
    first = next(scans, None)
    if first is None:
        return False
    return next(scans, None) is not None or (first.suffix.lower() == ".npz" and _npz_pair(first))


LONELY = {".bin", ".pcd", ".ply", ".xyz", ".feather"}


def match(source: str) -> float:
    try:
        path = split_source(source)[0]
        if "::" in path and not Path(path).exists():
            parts = [Path(part) for part in path.split("::")]
            return 0.9 if len(parts) == 2 and all(part.suffix.lower() in KNOWN for part in parts) else 0.0
        if Path(path).is_file():
            if path.lower().endswith(".npz"):
                return 0.6 if _npz_pair(Path(path)) else 0.0
            # One cloud is no pair, but this reader is the one to say so.
            return 0.2 if Path(path).suffix.lower() in LONELY else 0.0
    except (OSError, ValueError):
        return 0.0
    return score(source, _holds_pairs, 0.4)


def check(source: str) -> list[str]:
    return check_pairs(CloudsReader, source)


SPEC = ReaderSpec(
    name="clouds",
    summary="point clouds in plain files: A::B, or a folder of scans or pairs (.bin .pcd .ply .npy .npz .xyz .feather)",
    samples="CloudPair",
    match=match,
    open=CloudsReader,
    check=check,
)
