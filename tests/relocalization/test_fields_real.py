# SPDX-License-Identifier: Apache-2.0
"""Fields on real frames: tracks found with true poses and depth, so that only the descriptors are at stake."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from relocalization.fields import fit_fields
from relocalization.fit_config import FitConfig
from relocalization.fit_rays import ObservedRays

FOCAL, FOCAL_DEPTH, CENTER = 525.0, 585.0, np.array([320.0, 240.0])
QUERY = 5  # of ten frames, in the middle of the others


@pytest.fixture(scope="module")
def observations(shared_data: Path) -> dict[str, np.ndarray]:
    """RootSIFT of ten frames, each observation assigned to one point of the query frame's depth map."""
    folder = shared_data / "7scenes_redkitchen" / "redkitchen" / "seq-01"
    frames = sorted(folder.glob("*.color.jpg"))[:20:2]
    if len(frames) < 10:
        pytest.skip(f"no redkitchen frames in {folder}")
    sift, keypoints, descriptors, poses = cv2.SIFT_create(1200), [], [], []
    for path in frames:
        points, raw = sift.detectAndCompute(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), None)
        keypoints.append(np.array([p.pt for p in points]))
        descriptors.append(np.sqrt(raw / raw.sum(1, keepdims=True)).astype(np.float32))
        poses.append(np.loadtxt(str(path).replace("color.jpg", "pose.txt")))
    depth_mm = cv2.imread(str(frames[QUERY]).replace("color.jpg", "depth.png"), cv2.IMREAD_UNCHANGED)
    uv = keypoints[QUERY]
    cell = np.round((uv - CENTER) * FOCAL_DEPTH / FOCAL + CENTER).astype(int).clip(0, [639, 479])
    z = depth_mm[cell[:, 1], cell[:, 0]] / 1000.0
    rays = np.column_stack([(uv - CENTER) / FOCAL, np.ones(len(uv))])
    points = (rays * z[:, None]) @ poses[QUERY][:3, :3].T + poses[QUERY][:3, 3]
    landmark, view, seen = [], [], []
    for i, (pose, pixels, found) in enumerate(zip(poses, keypoints, descriptors)):
        local = (points - pose[:3, 3]) @ pose[:3, :3]
        with np.errstate(divide="ignore", invalid="ignore"):
            projected = local[:, :2] / local[:, 2:] * FOCAL + CENTER
        good = (z > 0.3) & (z < 8) & (local[:, 2] > 0.3)
        distance, nearest = cKDTree(pixels).query(np.where(good[:, None], projected, -1e6))
        similar = np.sum(found[nearest] * descriptors[QUERY], axis=1) > 0.6
        rows = np.flatnonzero(good & (distance < 4) & similar)
        landmark.append(rows)
        view.append(np.full(len(rows), i))
        seen.append(found[nearest[rows]])
    owner = np.concatenate(landmark)
    enough = np.bincount(owner, minlength=len(points))[owner] >= 5
    kept, new_owner = np.unique(owner[enough], return_inverse=True)
    return {
        "points": points[kept],
        "landmark": new_owner.astype(np.int64),
        "view": np.concatenate(view)[enough].astype(np.int64),
        "descriptors": np.concatenate(seen)[enough],
        "cameras": np.array([p[:3, 3] for p in poses]),
        "depth": z[kept],
    }


@pytest.mark.parametrize("axes", ["world", "view"])
def test_a_view_left_out_is_rendered_better_than_any_baseline_knows_it(
    observations: dict[str, np.ndarray], axes: str
) -> None:
    o = observations
    train = o["view"] != QUERY
    rays = ObservedRays.through_centers(
        o["landmark"][train], o["view"][train], o["points"], o["cameras"], o["descriptors"][train]
    )
    half_sizes = 6.0 * o["depth"] / FOCAL
    fields = fit_fields(rays, o["points"], half_sizes, FitConfig(axes=axes))  # type: ignore[arg-type]
    rendered = torch.nn.functional.normalize(fields.grids.render_from(o["cameras"][QUERY]), dim=1).numpy()

    truth = np.zeros_like(rendered)
    truth[o["landmark"][~train]] = o["descriptors"][~train]
    to_query = np.linalg.norm(o["cameras"] - o["cameras"][QUERY], axis=1)
    median, nearest = np.zeros_like(truth), np.zeros_like(truth)
    for i in range(len(truth)):
        mine = np.flatnonzero((o["landmark"] == i) & train)
        median[i] = np.median(o["descriptors"][mine], axis=0)
        nearest[i] = o["descriptors"][mine[np.argmin(to_query[o["view"][mine]])]]
    median /= np.linalg.norm(median, axis=1, keepdims=True)
    field, by_median, by_nearest = (float((d * truth).sum(1).mean()) for d in (rendered, median, nearest))
    assert len(truth) > 100
    assert field > by_median + 0.005
    assert field > by_nearest + 0.005
    assert 0.01 <= fields.ridge <= 3.0
