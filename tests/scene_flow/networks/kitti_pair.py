# SPDX-License-Identifier: Apache-2.0
"""KITTI Scene Flow frames as the "s" clouds, read without the project's reader, so that a proof does not lean on it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
BASELINE_M = 0.54
FAR_M = 35.0
GROUND_Y = -1.4


@lru_cache(maxsize=2)
def load_pair(training: Path, frame: str) -> tuple[Float32, Float32]:
    """Two (n, 3) float32 metres, x left, y up, z forward: row i of the second is where row i of the first went."""
    first = cv2.imread(str(training / "disp_occ_0" / f"{frame}_10.png"), cv2.IMREAD_UNCHANGED) / 256.0
    second = cv2.imread(str(training / "disp_occ_1" / f"{frame}_10.png"), cv2.IMREAD_UNCHANGED) / 256.0
    encoded = cv2.imread(str(training / "flow_occ" / f"{frame}_10.png"), cv2.IMREAD_UNCHANGED)[..., ::-1].astype(float)
    for line in (training / "calib_cam" / f"{frame}.txt").read_text().splitlines():
        if line.startswith("P_rect_02:"):
            projection = np.array(line.split()[1:], float).reshape(3, 4)
    v, u = np.nonzero((first > 0) & (second > 0) & (encoded[..., 2] > 0))
    flow = (encoded[v, u, :2] - 32768.0) / 64.0
    source = _unproject(np.stack([u, v], 1).astype(float), first[v, u], projection)
    target = _unproject(np.stack([u, v], 1) + flow, second[v, u], projection)
    ground = (source[:, 1] < GROUND_Y) & (target[:, 1] < GROUND_Y)
    keep = ~ground & (source[:, 2] < FAR_M) & (target[:, 2] < FAR_M)
    return source[keep].astype(np.float32), target[keep].astype(np.float32)


def draw(cloud: Float32, points: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of ``points`` distinct points."""
    return rng.choice(len(cloud), points, replace=False)


def _unproject(
    pixel: NDArray[np.float64], disparity: NDArray[np.float64], P: NDArray[np.float64]
) -> NDArray[np.float64]:
    focal = P[0, 0]
    depth = focal * BASELINE_M / (disparity + 1e-5)
    scale = depth + P[2, 3]
    x = (pixel[:, 0] * scale - P[0, 2] * depth - P[0, 3]) / focal
    y = (pixel[:, 1] * scale - P[1, 2] * depth - P[1, 3]) / focal
    return np.stack([-x, -y, depth], 1)
