# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from relocalization.features.detect import detect
from relocalization.features.sampling import GridField, bilinear_taps, blend

DEFAULTS = {"radius": 2, "threshold": 0.2, "border": 4, "top_k": 1000}


def peaks(centres: np.ndarray, strength: float, size: tuple[int, int] = (40, 60)) -> torch.Tensor:
    """Scores whose odds are Gaussians of 1 pixel at (x, y) centres."""
    yy, xx = np.mgrid[: size[0], : size[1]]
    odds = sum(strength * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 2) for x, y in centres)
    return torch.from_numpy(odds / (1 + odds)).float()


@pytest.mark.parametrize("strength", [0.05, 0.5, 50.0])
def test_sub_pixel_position_is_found_at_every_strength(strength: float) -> None:
    for offset in (-0.4, -0.15, 0.0, 0.3):
        uv, _ = detect(peaks(np.array([[30 + offset, 20 - offset]]), strength), **{**DEFAULTS, "threshold": 0.01})
        assert uv.shape == (1, 2)
        # a centroid over 5 x 5 pixels of a Gaussian with its tails cut off falls short by a tenth
        np.testing.assert_allclose(uv[0].numpy(), [30 + offset, 20 - offset], atol=0.06)


def test_position_on_a_pixel_is_exact() -> None:
    uv, scores = detect(peaks(np.array([[30.0, 20.0]]), 4.0), **DEFAULTS)
    np.testing.assert_allclose(uv.numpy(), [[30, 20]], atol=1e-6)
    np.testing.assert_allclose(scores.numpy(), [0.8], atol=1e-6)


def brute_force(scores: np.ndarray, radius: int, threshold: float, margin: int) -> set[tuple[int, int]]:
    height, width = scores.shape
    found = set()
    for y in range(margin, height - margin):
        for x in range(margin, width - margin):
            window = scores[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]
            if scores[y, x] > threshold and scores[y, x] >= window.max():
                found.add((x, y))
    return found


@pytest.mark.parametrize("radius", [1, 2, 4])
def test_maxima_equal_brute_force(radius: int) -> None:
    scores = np.random.default_rng(radius).uniform(0, 1, (50, 70)).astype(np.float32)
    uv, values = detect(torch.from_numpy(scores), radius=radius, threshold=0.3, border=0, top_k=10**6)
    wanted = brute_force(scores, radius, 0.3, radius)
    assert len(uv) == len(wanted)
    # each maximum's own score names it, since no two scores are equal
    assert {scores[y, x] for x, y in wanted} == set(values.tolist())
    assert (values[:-1] >= values[1:]).all()


def test_shifted_map_gives_shifted_points() -> None:
    scores = torch.from_numpy(np.random.default_rng(0).uniform(0, 1, (60, 60)).astype(np.float32))
    uv, values = detect(scores[:50, :50], **{**DEFAULTS, "border": 8})
    moved, moved_values = detect(scores[3:53, 5:55], **{**DEFAULTS, "border": 2})
    ours = {(round(x - 5, 9), round(y - 3, 9), v) for (x, y), v in zip(uv.tolist(), values.tolist())}
    theirs = {(round(x, 9), round(y, 9), v) for (x, y), v in zip(moved.tolist(), moved_values.tolist())}
    assert len(ours) > 20
    assert ours <= theirs


def test_border_threshold_and_cap_are_kept() -> None:
    scores = torch.from_numpy(np.random.default_rng(1).uniform(0, 1, (60, 80)).astype(np.float32))
    everything, all_values = detect(scores, **{**DEFAULTS, "border": 10, "threshold": 0.0})
    assert everything.min() >= 10
    assert everything[:, 0].max() <= 69
    assert everything[:, 1].max() <= 49
    strong, values = detect(scores, **{**DEFAULTS, "border": 10, "threshold": 0.97})
    assert 0 < len(strong) < len(everything)
    assert values.min() > 0.97
    few, few_values = detect(scores, **{**DEFAULTS, "border": 10, "threshold": 0.0, "top_k": 7})
    assert torch.equal(few, everything[:7])
    assert torch.equal(few_values, all_values[:7])


def test_nothing_found_is_empty_not_an_error() -> None:
    uv, values = detect(torch.full((40, 40), 0.1), **DEFAULTS)
    assert uv.shape == (0, 2)
    assert values.shape == (0,)


def test_bilinear_reading_equals_scipy() -> None:
    rng = np.random.default_rng(2)
    table = rng.normal(size=(13, 17)).astype(np.float32)
    uv = rng.uniform(-2, 18, (200, 2))
    ours = blend(torch.from_numpy(table.reshape(-1, 1)), *bilinear_taps(torch.from_numpy(uv), 13, 17))[:, 0]
    theirs = map_coordinates(table.astype(np.float64), uv[:, ::-1].T, order=1, mode="nearest")
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6)


def test_bilinear_reading_of_a_single_row_or_cell() -> None:
    uv = torch.tensor([[0.5, 0.0], [3.0, 7.0]], dtype=torch.float64)
    row = blend(torch.tensor([[0.0], [2.0], [4.0]]), *bilinear_taps(uv, 1, 3))
    np.testing.assert_allclose(row[:, 0].numpy(), [1, 4])
    cell = blend(torch.tensor([[5.0]]), *bilinear_taps(uv, 1, 1))
    np.testing.assert_allclose(cell[:, 0].numpy(), [5, 5])


def test_coarse_cells_are_read_exactly_at_their_centres() -> None:
    cells = torch.from_numpy(np.random.default_rng(3).normal(size=(16, 6, 9)).astype(np.float32))
    field = GridField(cells, stride=8)
    unit = cells / cells.norm(dim=0)
    centres = torch.tensor([[8 * i + 3.5, 8 * j + 3.5] for j in range(6) for i in range(9)], dtype=torch.float64)
    np.testing.assert_allclose(field.sample(centres).numpy(), unit.flatten(1).T.numpy(), atol=1e-5)
    np.testing.assert_allclose(field.full().numpy(), unit.numpy(), atol=1e-6)


def test_coarse_cells_of_a_gradient_are_read_without_a_shift() -> None:
    # the angle of a 2-vector grows by 0.01 per pixel of x: half a pixel of error would show as 0.005
    x_centres = 8 * torch.arange(20) + 3.5
    cells = torch.stack([torch.cos(0.01 * x_centres), torch.sin(0.01 * x_centres)])[:, None].expand(2, 10, 20)
    # a cubic kernel bends the line between the centres, equally to both sides: the mean over a cell must agree
    uv = torch.stack([torch.arange(24, 32), torch.full((8,), 40)], dim=1).double()
    read = GridField(cells.contiguous(), stride=8).sample(uv)
    error = torch.atan2(read[:, 1], read[:, 0]).numpy() - 0.01 * uv[:, 0].numpy()
    assert abs(error.mean()) < 1e-4
    assert abs(error).max() < 5e-3
