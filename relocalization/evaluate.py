# SPDX-License-Identifier: Apache-2.0
"""Errors of camera poses and what is said about many of them. Knows nothing of how a pose was found.

Conventions, in full in docs/evaluation.md:

- Translation error: distance of the camera centres, metres. Rotation error: angle of ``R_est' R_true``, degrees,
  by atan2 of sine and cosine (arccos loses all digits below 0.01 deg).
- A query that was not localized has the errors (inf, 180). It stays in every denominator and every median.
- Recall at (a cm, b deg) is the share of queries with *both* errors strictly below. For equal numbers this is
  ``max(e_t in cm, e_R in deg) < t``, the form in which the ICCV 2021 evaluation states it.
- Medians of the two errors are taken independently; an even list has the mean of its two middle values (NumPy).
- Over scenes: unweighted mean of the scenes' values. Pooled values are an extra and never called the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relocalization.pose_files import PoseFile, read_poses
from vision3d.errors import DataError
from vision3d.geometry.se3 import rotation_angle_deg
from vision3d.geometry.trajectory import nearest_stamps
from vision3d.types import Chart, Metric

Float = NDArray[np.float64]
Errors = tuple[Float, Float]

FAILED_T_M = np.inf
FAILED_R_DEG = 180.0
# Two clocks' stamps name the same image when they differ by less than this: a third of a 30 Hz frame time.
SAME_STAMP_NS = 10_000_000


@dataclass(frozen=True)
class Threshold:
    """A recall's limits; both are strict."""

    cm: float
    deg: float

    @property
    def name(self) -> str:
        """``recall_5cm_5deg``; whole metres are written as metres."""
        length = f"{self.cm / 100:g}m" if self.cm >= 100 else f"{self.cm:g}cm"
        return f"recall_{length}_{self.deg:g}deg"


# Indoors (7-Scenes: the first is the main one), then the outdoor limits of Cambridge and of the Aachen family.
THRESHOLDS = tuple(Threshold(*t) for t in ((5, 5), (2, 2), (1, 1), (10, 5), (25, 2), (50, 5), (500, 10)))


def pose_errors(T_est: ArrayLike | None, T_true: ArrayLike) -> tuple[float, float]:
    """Errors of one pose: (centre distance in metres, rotation angle in degrees).

    Args:
        T_est: (4, 4) ``T_world_cam``; None, or any number that is not finite, counts as not localized.
        T_true: (4, 4) ``T_world_cam``.

    Returns:
        ``(inf, 180.0)`` where the query was not localized.
    """
    e_t, e_R = errors([T_est], np.asarray(T_true, dtype=np.float64)[None])
    return float(e_t[0]), float(e_R[0])


def errors(T_est: Sequence[ArrayLike | None] | Float, T_true: Sequence[ArrayLike] | Float) -> Errors:
    """Errors of many poses, as :func:`pose_errors`: (N,) metres and (N,) degrees.

    Args:
        T_est: N poses (4, 4) ``T_world_cam``; None or not finite = not localized.
        T_true: N poses (4, 4) ``T_world_cam``.

    Raises:
        ValueError: lengths differ, a shape is not (4, 4), or a true pose is not finite.
    """
    if len(T_est) != len(T_true):
        raise ValueError(f"{len(T_est)} estimates for {len(T_true)} true poses")
    nowhere = np.full((4, 4), np.nan)
    est_list = [nowhere if T is None else np.asarray(T, dtype=np.float64) for T in T_est]
    true_list = [np.asarray(T, dtype=np.float64) for T in T_true]
    if any(T.shape != (4, 4) for T in est_list + true_list):
        raise ValueError("every pose must be a (4, 4) matrix")
    est, true = np.array(est_list).reshape(-1, 4, 4), np.array(true_list).reshape(-1, 4, 4)
    if not np.isfinite(true).all():
        raise ValueError("a true pose holds NaN or infinite numbers")
    found = np.isfinite(est).all(axis=(1, 2))
    e_t, e_R = np.full(len(est), FAILED_T_M), np.full(len(est), FAILED_R_DEG)
    e_t[found] = np.linalg.norm(est[found, :3, 3] - true[found, :3, 3], axis=-1)
    # R_est' R_true; text files round rotations to 6 digits, which this product tolerates.
    e_R[found] = rotation_angle_deg(np.swapaxes(est[found, :3, :3], -1, -2) @ true[found, :3, :3])
    return e_t, e_R


def recall(e_t: ArrayLike, e_R: ArrayLike, cm: float, deg: float) -> float:
    """Share of queries, 0 to 1, with both errors strictly below the limits. Raises ValueError on no query."""
    e_t, e_R = _checked(e_t, e_R)
    if not len(e_t):
        raise ValueError("recall of no query is undefined")
    return float(np.mean((e_t * 100.0 < cm) & (e_R < deg)))


def medians(e_t: ArrayLike, e_R: ArrayLike) -> tuple[float, float]:
    """Independent medians in (cm, deg); both infinite where half of the queries or more failed."""
    e_t, e_R = _checked(e_t, e_R)
    if not len(e_t):
        raise ValueError("median of no query is undefined")
    # 180 deg is a failure's mark, not a measured angle: averaged with a good one it would look like an error.
    angle = np.where(np.isfinite(e_t), e_R, np.inf)
    return float(np.median(e_t) * 100.0), float(np.median(angle))


def summarize(e_t: ArrayLike, e_R: ArrayLike, n: int | None = None, prefix: str = "") -> list[Metric]:
    """The metrics of one scene: recalls at :data:`THRESHOLDS`, both medians, the number localized.

    Args:
        e_t, e_R: (M,) metres and degrees, failures as (inf, 180).
        n: how many queries there were. More than M: the missing ones are counted as failures.
        prefix: put before every metric's name.

    Returns:
        Metrics whose ``n`` counts every query; an empty list when there was none.

    Raises:
        ValueError: a NaN, a negative error, or n < M.
    """
    e_t, e_R = _checked(e_t, e_R)
    n = len(e_t) if n is None else n
    if n < len(e_t):
        raise ValueError(f"{len(e_t)} errors for {n} queries")
    if n == 0:
        return []
    missing = n - len(e_t)
    e_t = np.concatenate([e_t, np.full(missing, FAILED_T_M)])
    e_R = np.concatenate([e_R, np.full(missing, FAILED_R_DEG)])
    median_cm, median_deg = medians(e_t, e_R)
    rows: list[tuple[str, float, str, Literal["higher", "lower"]]] = [
        (t.name, recall(e_t, e_R, t.cm, t.deg), "", "higher") for t in THRESHOLDS
    ]
    rows += [
        ("median_translation_cm", median_cm, "cm", "lower"),
        ("median_rotation_deg", median_deg, "deg", "lower"),
        ("n_localized", float(np.isfinite(e_t).sum()), "", "higher"),
    ]
    return [Metric(prefix + name, value, unit, better, n) for name, value, unit, better in rows]


def over_scenes(scenes: Mapping[str, Errors], prefix: str = "") -> dict[str, list[Metric]]:
    """Metrics per scene, their unweighted mean, and the pooled ones.

    Args:
        scenes: scene name -> (e_t metres, e_R degrees).

    Returns:
        ``{scene: metrics, ..., "mean": metrics, "pooled": metrics}``. In the mean, ``n`` is the number of all
        queries and ``n_localized`` their sum; an infinite median of one scene makes the mean infinite.

    Raises:
        ValueError: no scene, a scene without queries, or a scene called ``mean`` or ``pooled``.
    """
    if not scenes or {"mean", "pooled"} & set(scenes):
        raise ValueError("need at least one scene, none called 'mean' or 'pooled'")
    out = {name: summarize(*e, prefix=prefix) for name, e in scenes.items()}
    empty = [name for name, metrics in out.items() if not metrics]
    if empty:
        raise ValueError(f"no queries in {', '.join(empty)}")
    total = sum(metrics[0].n for metrics in out.values())
    mean = []
    for same in zip(*out.values(), strict=True):
        values = [m.value for m in same]
        value = sum(values) if same[0].name.endswith("n_localized") else float(np.mean(values))
        mean.append(Metric(same[0].name, value, same[0].unit, same[0].better, total))
    pooled = summarize(
        np.concatenate([np.asarray(e[0], dtype=np.float64) for e in scenes.values()]),
        np.concatenate([np.asarray(e[1], dtype=np.float64) for e in scenes.values()]),
        prefix=prefix,
    )
    return {**out, "mean": mean, "pooled": pooled}


def recall_curve(e_t: ArrayLike, e_R: ArrayLike, low: float = 0.1, high: float = 100.0, steps: int = 121) -> Errors:
    """Recall as a function of one limit t: share of queries with ``max(e_t in cm, e_R in deg) < t``.

    Returns:
        (steps,) limits, evenly spaced in the logarithm from ``low`` to ``high``, and (steps,) shares 0 to 1.
    """
    e_t, e_R = _checked(e_t, e_R)
    if not len(e_t):
        raise ValueError("recall of no query is undefined")
    worst = np.sort(np.maximum(e_t * 100.0, e_R))
    limits = np.geomspace(low, high, steps)
    return limits, np.searchsorted(worst, limits, side="left") / len(worst)


def recall_chart(curves: Mapping[str, Errors], name: str = "recall") -> Chart:
    """Recall curves of several methods on the same queries: method -> (e_t metres, e_R degrees)."""
    return Chart(
        name=name,
        title="Queries localized within t cm and t deg",
        x_label="t (cm and deg)",
        y_label="share of queries",
        series={method: recall_curve(*e) for method, e in curves.items()},
        x_log=True,
    )


def error_columns(names: Sequence[str], e_t: ArrayLike, e_R: ArrayLike) -> dict[str, dict[str, float]]:
    """Name -> ``{"translation_cm", "rotation_deg"}``, the form in which an Exhibit carries errors of single queries."""
    e_t, e_R = _checked(e_t, e_R)
    return {
        name: {"translation_cm": t * 100.0, "rotation_deg": r}
        for name, t, r in zip(names, e_t.tolist(), e_R.tolist(), strict=True)
    }


def evaluate_pose_file(estimates: str | Path, truth: str | Path) -> dict[str, Any]:
    """Compare a file of estimated poses with a file of true ones (kinds: see :mod:`relocalization.pose_files`).

    Every line of ``truth`` is a query; the ones without an estimate count as failures. Lists are paired by name,
    TUM trajectories by the nearest stamp within :data:`SAME_STAMP_NS`, KITTI files line by line.

    Returns:
        JSON-able: ``n``, ``n_localized``, ``metrics`` (list of dicts, null where infinite), ``failures`` (names),
        ``unknown`` (names of estimates that no line of truth asks for) and
        ``errors`` (name -> [cm, deg], null for failures).

    Raises:
        DataError: a damaged file, files of two kinds, or no estimate that belongs to a query.
    """
    est, true = read_poses(estimates), read_poses(truth)
    if est.kind != true.kind:
        raise DataError(est.path, f"is a {est.kind} file but {true.path} is a {true.kind} file")
    partner = _pair(est, true)
    if (partner < 0).all():
        raise DataError(est.path, f"holds no pose that {true.path} asks for; it begins with '{est.names[0]}'")
    e_t, e_R = errors([est.T_world_cam[i] if i >= 0 else None for i in partner], true.T_world_cam)
    used = set(partner.tolist())
    return {
        "n": len(true.names),
        "n_localized": int(np.isfinite(e_t).sum()),
        "metrics": [asdict(m) | {"value": m.value if np.isfinite(m.value) else None} for m in summarize(e_t, e_R)],
        "failures": [name for name, e in zip(true.names, e_t, strict=True) if not np.isfinite(e)],
        "unknown": [name for i, name in enumerate(est.names) if i not in used],
        "errors": {
            name: [t * 100.0, r] if np.isfinite(t) else None
            for name, t, r in zip(true.names, e_t.tolist(), e_R.tolist(), strict=True)
        },
    }


def _pair(est: PoseFile, true: PoseFile) -> NDArray[np.int64]:
    """(N,) for every true pose the position of its estimate, -1 without one."""
    if est.kind == "kitti":
        if len(est.names) != len(true.names):
            raise DataError(est.path, f"has {len(est.names)} lines, {true.path} has {len(true.names)}")
        return np.arange(len(true.names))
    if est.kind == "list":
        position = {name: i for i, name in enumerate(est.names)}
        return np.array([position.get(name, -1) for name in true.names])
    est_ns, true_ns = est.stamps_ns, true.stamps_ns
    nearest, back = _nearest(true_ns, est_ns), _nearest(est_ns, true_ns)
    # Mutual, so that one estimate never answers two queries.
    mutual = (nearest >= 0) & (back[nearest] == np.arange(len(nearest)))
    return np.where(mutual, nearest, -1)


def _nearest(stamps_ns: NDArray[np.int64], reference_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each stamp the position of the nearest reference, in whatever order; -1 beyond :data:`SAME_STAMP_NS`."""
    order = np.argsort(reference_ns, kind="stable")
    found = nearest_stamps(stamps_ns, reference_ns[order], SAME_STAMP_NS)
    return np.where(found >= 0, order[found], -1)


def _checked(e_t: ArrayLike, e_R: ArrayLike) -> Errors:
    e_t, e_R = np.asarray(e_t, dtype=np.float64).ravel(), np.asarray(e_R, dtype=np.float64).ravel()
    if e_t.shape != e_R.shape:
        raise ValueError(f"{len(e_t)} translation errors for {len(e_R)} rotation errors")
    # A NaN compares as "not below" in a recall but poisons a median: refuse it instead of choosing.
    if not ((e_t >= 0).all() and (e_R >= 0).all()):
        raise ValueError("errors must be >= 0 and not NaN; a failure is (inf, 180)")
    return e_t, e_R
