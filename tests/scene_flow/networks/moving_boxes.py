# SPDX-License-Identifier: Apache-2.0
"""Scenes of a few boxes that move rigidly, each cloud drawn from their surfaces on its own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor


class Boxes(NamedTuple):
    """A batch of scenes: (B, n, 3) source, target and true flow, metres, camera axes; (B, n) the source's boxes."""

    source: Tensor
    target: Tensor
    flow: Tensor
    box: Tensor


def moving_boxes(scenes: int, points: int, seed: int = 0) -> Boxes:
    """Scenes with 3 to 5 boxes a few metres apart; each moves up to 0.6 m along an axis and turns up to 9 degrees."""
    rng = np.random.default_rng(seed)
    made = [_scene(points, rng) for _ in range(scenes)]
    stacked = [torch.from_numpy(np.stack(arrays)) for arrays in zip(*made)]
    return Boxes(*stacked)


def _scene(points: int, rng: np.random.Generator) -> list[NDArray[np.generic]]:
    boxes = int(rng.integers(3, 6))
    centre = np.stack([np.arange(boxes) * 3.0 - 4.5, rng.uniform(-0.5, 0.5, boxes), rng.uniform(5, 9, boxes)], 1)
    half = rng.uniform(0.4, 1.0, (boxes, 3))
    move = rng.uniform(-0.6, 0.6, (boxes, 3))
    turn = Rotation.from_euler("y", rng.uniform(-9, 9, (boxes, 1)), degrees=True).as_matrix()
    of_source, of_target = rng.integers(boxes, size=(2, points))
    at = _on_surface(half[of_source], rng)
    source = at + centre[of_source]
    moved = np.einsum("nij,nj->ni", turn[of_source], at) + (centre + move)[of_source]
    again = np.einsum("nij,nj->ni", turn[of_target], _on_surface(half[of_target], rng)) + (centre + move)[of_target]
    return [source.astype(np.float32), again.astype(np.float32), (moved - source).astype(np.float32), of_source]


def _on_surface(half: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """(n, 3) points on the faces of boxes of half sizes (n, 3)."""
    at = rng.uniform(-1, 1, half.shape)
    rows = np.arange(len(half))
    axis = rng.integers(3, size=len(half))
    at[rows, axis] = np.sign(at[rows, axis])
    return at * half
