# SPDX-License-Identifier: Apache-2.0
"""Mutual nearest neighbours of descriptors: over everything, near a prediction, or along epipolar lines.

All three share one contract. Descriptors are (N, C) float, NumPy or torch on any device; they are scaled to
unit norm, the similarity is the cosine, and a pair is returned only when each is the other's best candidate
and the similarity reaches the threshold. Ties go to the lowest index. A descriptor that is all zero or holds
NaN never matches (thresholding before the arg-max without a re-check pairs such rows: favor card, trap 5).

Pairs come back as (K, 2) int64 (index in a, index in b), ascending in a, with similarities (K,) float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from vision3d.geometry.epipolar import essential_from_pose, two_ray_depths

Matches = tuple[NDArray[np.int64], NDArray[np.float32]]
Descriptors = Any  # NDArray or torch.Tensor, (N, C)

_CELLS = 1 << 24  # similarities held at once: 64 MB of float32
_TIE = 2.0**-20  # similarities closer than about this are equal: the order of additions inside a GEMM varies


def mutual_nn(a: Descriptors, b: Descriptors, threshold: float, ratio: float | None = None) -> Matches:
    """Mutual nearest neighbours of two whole sets.

    Args:
        a, b: (N, C) and (M, C) descriptors.
        threshold: smallest cosine of a pair.
        ratio: keep a pair only if its distance is at most this share of the second best's, on both sides.
    """
    unit_a, rows = _unit(a)
    unit_b, cols = _unit(b, like=unit_a)
    if not len(rows) or not len(cols):
        return _empty()
    n_b = len(cols)
    best_b = torch.full((n_b,), -2.0, device=unit_a.device)
    second_b = best_b.clone()
    partner_b = torch.zeros(n_b, dtype=torch.int64, device=unit_a.device)
    row_best, row_second, row_partner = [], [], []
    step = max(1, _CELLS // n_b)
    for start in range(0, len(rows), step):
        s = _quantize(unit_a[start : start + step] @ unit_b.T)
        best, partner = s.max(dim=1)
        col_best, col_partner = s.max(dim=0)
        row_best.append(best)
        row_partner.append(partner)
        if ratio is not None:
            col_second = _second(s, col_best, col_partner, dim=0)
            # The loser of the two bests competes with both seconds.
            second_b = torch.maximum(torch.maximum(second_b, col_second), torch.minimum(best_b, col_best))
            row_second.append(_second(s, best, partner, dim=1))
        better = col_best > best_b
        best_b = torch.where(better, col_best, best_b)
        partner_b = torch.where(better, col_partner + start, partner_b)
    best_a, partner_a = torch.cat(row_best), torch.cat(row_partner)
    keep = (partner_b[partner_a] == torch.arange(len(rows), device=best_a.device)) & (best_a.double() >= threshold)
    if ratio is not None:
        keep &= _passes_ratio(best_a, torch.cat(row_second), ratio)
        keep &= _passes_ratio(best_a, second_b[partner_a], ratio)
    i = keep.nonzero()[:, 0].cpu().numpy()
    j = partner_a.cpu().numpy()[i]
    return np.stack([rows[i], cols[j]], axis=1), best_a.cpu().numpy()[i]


def guided_nn(
    descriptors_a: Descriptors,
    uv_a_px: ArrayLike,
    descriptors_b: Descriptors,
    uv_b_px: ArrayLike,
    radius_px: ArrayLike,
    threshold: float,
    ratio: float | None = None,
) -> Matches:
    """Mutual nearest neighbours among pairs whose pixels lie close together.

    Args:
        descriptors_a, uv_a_px: (N, C) and (N, 2), landmarks and where they are predicted; NaN = not visible.
        descriptors_b, uv_b_px: (M, C) and (M, 2), key points.
        radius_px: largest pixel distance (inclusive), one number or one per a (N,).
        threshold, ratio: as in :func:`mutual_nn`; second best means among the candidates.
    """
    unit_a, rows = _unit(descriptors_a)
    unit_b, cols = _unit(descriptors_b, like=unit_a)
    uv_a, uv_b = np.asarray(uv_a_px, dtype=np.float64), np.asarray(uv_b_px, dtype=np.float64)
    _same_length(descriptors_a, uv_a, "a")
    _same_length(descriptors_b, uv_b, "b")
    radius = np.broadcast_to(np.asarray(radius_px, dtype=np.float64), (len(uv_a),))[rows]
    ok_a = np.isfinite(uv_a[rows]).all(axis=1) & (radius >= 0)
    ok_b = np.isfinite(uv_b[cols]).all(axis=1)
    if not ok_a.any() or not ok_b.any():
        return _empty()
    at_a, at_b = np.flatnonzero(ok_a), np.flatnonzero(ok_b)
    near = cKDTree(uv_a[rows[at_a]]).sparse_distance_matrix(
        cKDTree(uv_b[cols[at_b]]), float(radius[at_a].max()), output_type="ndarray"
    )
    near = near[near["v"] <= radius[at_a[near["i"]]]]
    return _mutual_of_pairs(unit_a, unit_b, rows, cols, at_a[near["i"]], at_b[near["j"]], threshold, ratio)


def epipolar_nn(
    descriptors_a: Descriptors,
    xy_a: ArrayLike,
    descriptors_b: Descriptors,
    xy_b: ArrayLike,
    T_b_a: ArrayLike,
    focal_px: tuple[float, float],
    band_px: float,
    threshold: float,
    ratio: float | None = None,
    *,
    min_depth: float = 0.0,
    max_depth: float = np.inf,
    min_parallax_deg: float = 0.0,
) -> Matches:
    """Mutual nearest neighbours among pairs that a known relative pose allows.

    A pair is a candidate when either point lies within ``band_px`` of the other's epipolar line and the
    two rays meet in front of both cameras. Pixel distances are those of the undistorted image.

    Args:
        descriptors_a, xy_a: (N, C) and (N, 2) undistorted normalised coordinates (:meth:`Camera.normalize`).
        descriptors_b, xy_b: the same for the other image, (M, C) and (M, 2).
        T_b_a: (4, 4) motion from camera a to camera b, metres.
        focal_px: focal lengths of a and b, pixels.
        band_px: half width of the band.
        threshold, ratio: as in :func:`mutual_nn`; second best means among the candidates.
        min_depth, max_depth: bounds on both depths, metres. ``band_px`` is granted to them too: rays that are
            parallel within that many pixels count as meeting at any depth.
        min_parallax_deg: smallest angle between the two rays.
    """
    unit_a, rows = _unit(descriptors_a)
    unit_b, cols = _unit(descriptors_b, like=unit_a)
    xy_a, xy_b = np.asarray(xy_a, dtype=np.float64), np.asarray(xy_b, dtype=np.float64)
    _same_length(descriptors_a, xy_a, "a")
    _same_length(descriptors_b, xy_b, "b")
    finite_a, finite_b = np.isfinite(xy_a[rows]).all(axis=1), np.isfinite(xy_b[cols]).all(axis=1)
    unit_a, rows = unit_a[torch.from_numpy(finite_a).to(unit_a.device)], rows[finite_a]
    unit_b, cols = unit_b[torch.from_numpy(finite_b).to(unit_b.device)], cols[finite_b]
    if not len(rows) or not len(cols):
        return _empty()
    T_b_a = np.asarray(T_b_a, dtype=np.float64)
    i, j = _epipolar_candidates(T_b_a, xy_a[rows], xy_b[cols], focal_px, band_px)
    depth_a, depth_b, parallax = two_ray_depths(T_b_a, xy_a[rows[i]], xy_b[cols[j]])
    slack = band_px / min(focal_px)
    ok = (depth_a >= min_depth) & (depth_b >= min_depth) & (depth_a <= max_depth) & (depth_b <= max_depth)
    ok = (ok & (depth_a > 0) & (depth_b > 0)) | (parallax <= slack)
    ok &= parallax >= np.radians(min_parallax_deg)
    return _mutual_of_pairs(unit_a, unit_b, rows, cols, i[ok], j[ok], threshold, ratio)


def _epipolar_candidates(
    T_b_a: NDArray[np.float64],
    xy_a: NDArray[np.float64],
    xy_b: NDArray[np.float64],
    focal_px: tuple[float, float],
    band_px: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index pairs with both epipolar distances within the band, by a dense test in chunks of rows."""
    E = essential_from_pose(T_b_a)
    a = np.concatenate([xy_a, np.ones((len(xy_a), 1))], axis=1)
    b = np.concatenate([xy_b, np.ones((len(xy_b), 1))], axis=1)
    line_b, line_a = a @ E.T, b @ E
    # |x_b' E x_a| <= band * |line| / focal; multiplied out, so that a point on the epipole (0 <= 0) passes.
    limit_b = (band_px / focal_px[1] * np.hypot(line_b[:, 0], line_b[:, 1])).astype(np.float32)
    limit_a = (band_px / focal_px[0] * np.hypot(line_a[:, 0], line_a[:, 1])).astype(np.float32)
    line_b32, b32 = line_b.astype(np.float32), np.ascontiguousarray(b.T.astype(np.float32))
    found_i, found_j = [], []
    step = max(1, _CELLS // len(b))
    for start in range(0, len(a), step):
        rows = slice(start, start + step)
        numerator = line_b32[rows] @ b32
        np.abs(numerator, out=numerator)
        i, j = np.nonzero(numerator <= np.minimum(limit_b[rows, None], limit_a[None]))
        found_i.append(i + start)
        found_j.append(j)
    return np.concatenate(found_i), np.concatenate(found_j)


def _mutual_of_pairs(
    unit_a: torch.Tensor,
    unit_b: torch.Tensor,
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
    i: NDArray[np.int64],
    j: NDArray[np.int64],
    threshold: float,
    ratio: float | None,
) -> Matches:
    """Mutual nearest neighbours among the candidate pairs (i, j); rows and cols are the caller's indices."""
    if not len(i):
        return _empty()
    s = _pair_similarity(unit_a, unit_b, i, j)
    top = np.ones(len(i), dtype=bool)
    for own, other, n in ((i, j, len(rows)), (j, i, len(cols))):
        best = np.full(n, -2.0, dtype=np.float32)
        np.maximum.at(best, own, s)
        is_best = s == best[own]
        first = np.full(n, np.iinfo(np.int64).max)
        np.minimum.at(first, own[is_best], other[is_best])
        chosen = is_best & (other == first[own])
        top &= chosen
        if ratio is not None:
            second = np.full(n, -2.0, dtype=np.float32)
            np.maximum.at(second, own[~chosen], s[~chosen])
            top &= _passes_ratio(torch.from_numpy(s), torch.from_numpy(second[own]), ratio).numpy()
    top &= s.astype(np.float64) >= threshold
    i, j, s = i[top], j[top], s[top]
    order = np.argsort(i, kind="stable")
    return np.stack([rows[i[order]], cols[j[order]]], axis=1), s[order]


def _pair_similarity(
    unit_a: torch.Tensor, unit_b: torch.Tensor, i: NDArray[np.int64], j: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Cosines (P,) of the pairs: from a dense product when that is less work than gathering rows."""
    n_a, n_b = len(unit_a), len(unit_b)
    out = np.empty(len(i), dtype=np.float32)
    if 100 * len(i) > n_a * n_b and n_a * n_b <= _CELLS:
        dense = _quantize(unit_a @ unit_b.T).cpu().numpy()
        np.take(dense.reshape(-1), i * n_b + j, out=out)
        return out
    step = max(1, _CELLS // max(1, unit_a.shape[1]) // 4)
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        ti, tj = (torch.from_numpy(k[part]).to(unit_a.device) for k in (i, j))
        out[part] = _quantize((unit_a[ti] * unit_b[tj]).sum(dim=1)).cpu().numpy()
    return out


def _unit(descriptors: Descriptors, like: torch.Tensor | None = None) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """The usable descriptors (K, C) float32 with unit norm, and their indices (K,)."""
    x = descriptors.detach() if isinstance(descriptors, torch.Tensor) else torch.from_numpy(np.asarray(descriptors))
    if x.ndim != 2:
        raise ValueError(f"descriptors must be (N, C), got shape {tuple(x.shape)}")
    x = x.to(device=None if like is None else like.device, dtype=torch.float32)
    if like is not None and len(x) and len(like) and x.shape[1] != like.shape[1]:
        raise ValueError(f"descriptors have {like.shape[1]} and {x.shape[1]} channels: they come from two networks")
    norm = x.norm(dim=1, keepdim=True)
    usable = (torch.isfinite(norm) & (norm > 1e-12))[:, 0].nonzero()[:, 0]
    if len(usable) < len(x):
        x, norm = x[usable], norm[usable]
    return x / norm, usable.cpu().numpy()


def _quantize(s: torch.Tensor) -> torch.Tensor:
    """Similarities on a grid of 1e-6, so that equal descriptors tie wherever they stand in the matrix."""
    return s.mul_(1 / _TIE).round_().mul_(_TIE)


def _second(s: torch.Tensor, best: torch.Tensor, index: torch.Tensor, dim: int) -> torch.Tensor:
    """Largest entry along ``dim`` apart from the one at ``index``; -2 where there is no other. Keeps s."""
    if s.shape[dim] < 2:
        return torch.full_like(best, -2.0)
    at = index.unsqueeze(dim)
    s.scatter_(dim, at, -2.0)
    second = s.amax(dim=dim)
    s.scatter_(dim, at, best.unsqueeze(dim))
    return second


def _passes_ratio(best: torch.Tensor, second: torch.Tensor, ratio: float) -> torch.Tensor:
    """Lowe's test on the distances sqrt(2 - 2 cos) of unit vectors; a lone candidate passes."""
    return (second < -1.5) | ((1 - best).clamp_min(0) <= ratio**2 * (1 - second))


def _same_length(descriptors: Descriptors, points: NDArray[np.float64], side: str) -> None:
    if len(descriptors) != len(points):
        raise ValueError(f"{len(descriptors)} descriptors but {len(points)} points in {side}")


def _empty() -> Matches:
    return np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.float32)
