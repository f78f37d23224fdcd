# SPDX-License-Identifier: Apache-2.0
"""Argoverse 2 sensor logs: consecutive LiDAR sweeps in the ego vehicle's frame, with its motion and flow truth.

The source is a log (``sensors/lidar/``, ``city_SE3_egovehicle.feather``), a folder of logs, or the data set's root with
``train/``, ``val/``, ``test/``, which are the splits. Truth comes from ``flow_labels.feather`` in a log of which it has
a row per point of the first sweep, or ``flow_labels/<stamp>.feather``; else from ``annotations.feather``: points in a
box move as its track does, others stand still. A log without either (the test split) has no truth.

Options after '?':

- ``range=35``: points are scored inside the square |x|, |y| < 35 m; 0 scores all. No point is dropped;
- ``ground=1`` scores ground points too. They are known from flow labels only; else every point is scored;
- ``every=5``: each fifth sweep starts a pair, as in official scoring; 1 by default.

Axes: lidar. Names: ``<log>/<stamp of the first sweep>``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.geometry.se3 import invert
from vision3d.readers._feather import QUATERNION, TRANSLATION, poses_of, read_feather, read_points
from vision3d.readers._flow_av2 import Boxes, box_flow, meta_classes, moving, read_boxes
from vision3d.readers._flow_pairs import PairReader, PairRecord, Truth, as_cloud, check_pairs, finite_rows, score_any
from vision3d.readers._source import bounded, flag, parse_source
from vision3d.types.clouds import CloudPair, FlowTruth

LEVELS = 3  # of folders above the logs, e.g. sensor/val/
SPLITS = ("train", "val", "test")
FLOW_COLUMNS = ("flow_tx_m", "flow_ty_m", "flow_tz_m")
OPTIONS = {"range": bounded(float, 0, 1000), "every": bounded(int, 1, 10_000), "ground": flag}


class Av2Reader(PairReader):
    """Pairs of all logs, in order of log and time."""

    def __init__(self, source: str, config: DataConfig) -> None:
        path, options = parse_source(source, OPTIONS)
        if not Path(path).exists():
            raise DataError(path, "no such file or folder")
        logs = _logs(Path(path), config.split)
        self.range_m, self.ground = options.get("range", 35.0), options.get("ground", False)
        records: list[PairRecord] = []
        for log in logs:
            sweeps = sorted((log / "sensors" / "lidar").glob("*.feather"), key=lambda path: (len(path.stem), path.stem))
            wrong = next((path for path in sweeps if not path.stem.isdigit()), None)
            if wrong is not None:
                raise DataError(wrong, "a sweep's name must be its time in nanoseconds")
            for i in range(0, len(sweeps) - 1, options.get("every", 1)):
                records.append(PairRecord(f"{log.name}/{sweeps[i].stem}", (sweeps[i], sweeps[i + 1]), (log, i)))
        if not records:
            raise DataError(path, "holds no log with two LiDAR sweeps")
        # The poses and boxes of the log that was read last: the pairs of one log follow each other.
        self._log: tuple[Path, NDArray[np.int64], NDArray[np.float64], Boxes | None] | None = None
        super().__init__("argoverse2-flow", records, config)

    def _read(self, record: PairRecord) -> tuple[CloudPair, Truth]:
        log, position = record.place
        stamps = (int(record.files[0].stem), int(record.files[1].stem))
        source, target = (as_cloud(read_points(path), path) for path in record.files)
        _, pose_stamps, poses, boxes = self._tables(log)
        T_city_ego = []
        for stamp in stamps:
            at = int(np.searchsorted(pose_stamps, stamp))
            if at == len(pose_stamps) or pose_stamps[at] != stamp:
                raise DataError(log / "city_SE3_egovehicle.feather", f"has no pose at the sweep's time {stamp}")
            T_city_ego.append(poses[at])
        T = invert(T_city_ego[1]) @ T_city_ego[0]
        dt_s = (stamps[1] - stamps[0]) * 1e-9
        labels = self._labels(log, position, record.files[0], len(source))
        ground = None if labels is None else labels.get("is_ground_0")
        pair = CloudPair(
            record.name, source, target, "lidar", dt_s, T, source_ground=ground, stamp_ns=stamps[0], target_ground=None
        )

        def truth() -> FlowTruth | None:
            if labels is not None:
                flow = np.stack([labels[name] for name in FLOW_COLUMNS], axis=1).astype(np.float32)
                valid, category = finite_rows(flow), labels["classes"]
            elif boxes is not None:
                flow, valid, category = box_flow(source, boxes, stamps, T)
            else:
                return None
            if self.range_m:
                valid = valid & (np.abs(source[:, :2]) < self.range_m).all(axis=1)
            if ground is not None and not self.ground:
                valid = valid & ~ground
            dynamic = labels.get("dynamic") if labels is not None else None
            return FlowTruth(
                flow=np.where(np.isfinite(flow), flow, np.float32(0)),
                valid=valid,
                points=source,
                axes="lidar",
                dt_s=dt_s,
                dynamic=moving(source, flow, T, dt_s) if dynamic is None else dynamic,
                ground=ground,
                classes=meta_classes(category),
                T_target_source=T,
            )

        return pair, truth

    def _tables(self, log: Path) -> tuple[Path, NDArray[np.int64], NDArray[np.float64], Boxes | None]:
        if self._log is None or self._log[0] != log:
            table = read_feather(log / "city_SE3_egovehicle.feather", ("timestamp_ns", *QUATERNION, *TRANSLATION))
            order = np.argsort(table["timestamp_ns"], kind="stable")
            annotations = log / "annotations.feather"
            boxes = read_boxes(annotations) if annotations.is_file() else None
            self._log = (log, table["timestamp_ns"][order].astype(np.int64), poses_of(table)[order], boxes)
        return self._log

    def _labels(self, log: Path, position: int, sweep: Path, count: int) -> dict[str, NDArray[Any]] | None:
        """Flow labels of one pair, a row per source point, or None where the log has none for it."""
        path = log / "flow_labels" / f"{sweep.stem}.feather"
        if not path.is_file():
            path = log / "flow_labels.feather"
            if position or not path.is_file():
                return None
        labels = read_feather(path, (*FLOW_COLUMNS, "classes"), ("dynamic", "is_ground_0"))
        if len(labels["classes"]) != count:
            raise DataError(path, f"has {len(labels['classes'])} rows, the sweep {sweep.name} {count} points")
        return {
            name: values.astype(bool) if name in ("dynamic", "is_ground_0") else values
            for name, values in labels.items()
        }


def _logs(root: Path, split: str) -> list[Path]:
    """The logs at or below ``root`` that belong to ``split``, sorted by name."""
    if split not in ("all", *SPLITS):
        raise ConfigError(f"Argoverse 2 has the splits {', '.join(SPLITS)} and all, not '{split}'")
    if _is_log(root):
        found = [root.absolute()]
    else:
        levels = (sorted(filter(_is_log, root.glob("/".join("*" * n)))) for n in range(1, LEVELS + 1))
        found = next((logs for logs in levels if logs), [])
    if not found:
        raise DataError(root, "holds no Argoverse 2 log (sensors/lidar/ and city_SE3_egovehicle.feather)")
    chosen = found if split == "all" else [log for log in found if log.absolute().parent.name == split]
    if not chosen:
        raise DataError(root, f"holds no log of the split '{split}': those lie in a folder {split}/")
    return chosen


def _is_log(folder: Path) -> bool:
    return (folder / "city_SE3_egovehicle.feather").is_file() and (folder / "sensors" / "lidar").is_dir()


def match(source: str) -> float:
    return score_any(source, _is_log, 0.95, levels=LEVELS)


def check(source: str) -> list[str]:
    return check_pairs(Av2Reader, source)


SPEC = ReaderSpec(
    name="av2",
    summary="Argoverse 2 sensor logs: LiDAR sweep pairs, ego-motion, flow from labels or annotated boxes",
    samples="CloudPair",
    match=match,
    open=Av2Reader,
    card="argoverse2-flow",
    check=check,
    extras=("av2:pyarrow",),
)
