# SPDX-License-Identifier: Apache-2.0
"""Logs of OpenSceneFlow: one ``.h5`` file per log, in it a group per sweep, named by the sweep's time.

A group holds ``lidar`` (N, 3 or more), ``pose`` (4, 4) vehicle to world, ``ground_mask`` (N,) and, where flow to the
next sweep is known, ``flow`` (N, 3) with the vehicle's motion in it, ``flow_is_valid``, ``flow_category_indices``
(Argoverse 2's) and ``ego_motion`` (4, 4). Consecutive groups are a pair. ``index_eval.pkl`` is not read: a pickle can
run anything.

Options after '?':

- ``every=5``: each fifth sweep starts a pair, as in official scoring; 1 by default;
- ``index=FILE``: lines ``log stamp`` of the sweeps that start a pair, to score exactly what somebody else scored;
- ``range=35``: points are scored inside the square |x|, |y| < 35 m; 0 scores all. No point is dropped;
- ``ground=1`` scores ground points too;
- ``dt=0.1``: seconds between sweeps, where the stamps' unit cannot be told;
- ``lidar_at=x,y,z``: where the LiDAR sits on the vehicle, in metres. Newer logs of Argoverse 2 hold points in the
  sensor's frame but the vehicle's motion (there: ``lidar_at=1.35,0,1.64``): left alone, what stands still seems to
  move by some centimetres in a turn.

Axes: lidar. Names: ``<log>/<stamp of the first sweep>``.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import DataError
from vision3d.geometry.se3 import from_rt, invert, pose_problem, transform
from vision3d.readers._common import require_split
from vision3d.readers._flow_av2 import meta_classes, moving
from vision3d.readers._flow_h5 import nanoseconds, opened, read_sweep, rows_of, seconds_between, sweep_stamps
from vision3d.readers._flow_pairs import PairReader, PairRecord, Truth, as_cloud, check_pairs, finite_rows, score_any
from vision3d.readers._flow_rigid import fit_rigid
from vision3d.readers._poses import numbered_fields
from vision3d.readers._source import bounded, flag, parse_source, split_source
from vision3d.types.clouds import CloudPair, FlowTruth

# Flow of what stands still is the vehicle's motion to rounding; more than this is another frame.
SAME_FRAME_M = 0.01


def _place(text: str) -> NDArray[np.float64]:
    values = [float(part) for part in text.split(",")]
    if len(values) != 3:
        raise ValueError("say x,y,z in metres")
    return np.array(values)


OPTIONS = {
    "every": bounded(int, 1, 10_000),
    "index": Path,
    "range": bounded(float, 0, 1000),
    "ground": flag,
    "dt": bounded(float, 1e-3, 10),
    "lidar_at": _place,
}


class OpenFlowReader(PairReader):
    """Pairs of all logs, in order of log and time."""

    def __init__(self, source: str, config: DataConfig) -> None:
        path, options = parse_source(source, OPTIONS)
        root = Path(path)
        if not root.exists():
            raise DataError(root, "no such file or folder")
        require_split(config, "a folder of .h5 logs")
        logs = [root] if root.is_file() else sorted(root.glob("*.h5"))
        if not logs:
            raise DataError(root, "holds no .h5 log")
        self.range_m, self.ground = options.get("range", 35.0), options.get("ground", False)
        self.dt_s, self.lidar_at = options.get("dt"), options.get("lidar_at")
        wanted = _index(options["index"]) if "index" in options else None
        records: list[PairRecord] = []
        for log in logs:
            stamps = sweep_stamps(log)
            for i, (first, second) in enumerate(itertools.pairwise(stamps)):
                name = f"{log.stem}/{first}"
                if i % options.get("every", 1) == 0 and (wanted is None or name in wanted):
                    records.append(PairRecord(name, (log,), (first, second)))
        if not records:
            where = root if wanted is None else options["index"]
            raise DataError(where, "no log has two sweeps" if wanted is None else f"names no sweep of {root}")
        notes = []
        if wanted is not None and len(records) < len(wanted):
            notes.append(f"{len(wanted) - len(records)} of {len(wanted)} sweeps of the index are not there")
        super().__init__("openflow", records, config, notes)

    def _read(self, record: PairRecord) -> tuple[CloudPair, Truth]:
        log, (first, second) = record.files[0], record.place
        with opened(log) as file:
            now, then = (read_sweep(file, stamp, log) for stamp in (first, second))
        source, target = (
            as_cloud(group["lidar"][:, :3] if group["lidar"].ndim == 2 else group["lidar"], log, f"points of {stamp}")
            for group, stamp in ((now, first), (then, second))
        )
        T = self._motion(now, then, log, first)
        dt_s = self.dt_s or seconds_between(int(first), int(second))
        ground, target_ground = (
            rows_of(group, "ground_mask", len(cloud), log, stamp)
            for group, cloud, stamp in ((now, source, first), (then, target, second))
        )
        pair = CloudPair(
            record.name, source, target, "lidar", dt_s, T, ground, target_ground, stamp_ns=nanoseconds(int(first))
        )

        def truth() -> FlowTruth | None:
            if "flow" not in now:
                return None
            flow = np.asarray(rows_of(now, "flow", len(source), log, first, (3,)), dtype=np.float32)
            given = rows_of(now, "flow_is_valid", len(source), log, first)
            category = rows_of(now, "flow_category_indices", len(source), log, first)
            valid = finite_rows(flow) if given is None else finite_rows(flow) & given
            flow = np.where(np.isfinite(flow), flow, np.float32(0))
            still = valid if category is None else valid & (category == 0)
            true_T = true_motion(source[still], flow[still], T)
            if self.range_m:
                valid = valid & (np.abs(source[:, :2]) < self.range_m).all(axis=1)
            if ground is not None and not self.ground:
                valid = valid & ~ground
            return FlowTruth(
                flow=flow,
                valid=valid,
                points=source,
                axes="lidar",
                dt_s=dt_s,
                dynamic=None if true_T is None else moving(source, flow, true_T, dt_s),
                ground=ground,
                classes=None if category is None else meta_classes(category.astype(np.int64)),
                T_target_source=true_T,
            )

        return pair, truth

    def _motion(self, now: dict[str, Any], then: dict[str, Any], log: Path, stamp: str) -> NDArray[np.float64] | None:
        if "ego_motion" in now:
            T = now["ego_motion"].astype(np.float64)
        elif "pose" in now and "pose" in then:
            T = np.linalg.inv(then["pose"].astype(np.float64)) @ now["pose"].astype(np.float64)
        else:
            return None
        problem = pose_problem(T)
        if problem:
            raise DataError(log, f"motion from {stamp}: {problem}")
        if self.lidar_at is None:
            return T
        T_vehicle_lidar = from_rt(np.eye(3), self.lidar_at)
        return invert(T_vehicle_lidar) @ T @ T_vehicle_lidar


def true_motion(
    points: NDArray[np.float32], flow: NDArray[np.float32], T: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    """(4, 4) motion of what stands still: ``T`` where the flow of the background agrees, else the one that it follows.

    The flow is the truth: who moves must not depend on the frame that ``T`` is stated in.
    """
    p = points.astype(np.float64)
    if T is not None and (not len(p) or frame_gap(p, flow, T) <= SAME_FRAME_M):
        return T
    return fit_rigid(p, p + flow, 0.05)


def frame_gap(points: NDArray[Any], flow: NDArray[Any], T: NDArray[np.float64]) -> float:
    """Median metres between the flow (N, 3) of points that stand still and the motion ``T``."""
    p = np.asarray(points, dtype=np.float64)
    return float(np.median(np.linalg.norm(transform(T, p) - p - flow, axis=1)))


def _index(path: Path) -> set[str]:
    names = set()
    for number, fields in numbered_fields(path):
        if len(fields) != 2:
            raise DataError(path, f"line {number}: {len(fields)} fields, not 'log stamp'")
        names.add("/".join(fields))
    return names


def _has_logs(folder: Path) -> bool:
    return next(folder.glob("*.h5"), None) is not None


def match(source: str) -> float:
    try:
        path = Path(split_source(source)[0])
        if path.suffix == ".h5" and path.is_file():
            return 0.9
    except (OSError, ValueError):
        return 0.0
    return score_any(source, _has_logs, 0.9)


def check(source: str) -> list[str]:
    problems = check_pairs(OpenFlowReader, source)
    if problems:
        return problems
    reader = OpenFlowReader(source, DataConfig(skip_bad=True))
    pair, truth = reader[0], reader.truth(0)
    if truth is not None and truth.classes is not None and pair.T_target_source is not None:
        still = truth.classes == 0
        gap = frame_gap(pair.source[still], truth.flow[still], pair.T_target_source) if still.any() else 0.0
        if gap > SAME_FRAME_M:
            name = f"{reader.records[0].files[0]}: {pair.name}"
            return [f"{name}: background flow and motion differ by {gap:.3f} m: sensor's frame? see ?lidar_at="]
    return []


SPEC = ReaderSpec(
    name="openflow",
    summary="OpenSceneFlow logs (.h5): LiDAR sweep pairs with pose, ground and flow",
    samples="CloudPair",
    match=match,
    open=OpenFlowReader,
    card="openflow",
    check=check,
    extras=("h5:h5py",),
)
