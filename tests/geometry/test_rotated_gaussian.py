# SPDX-License-Identifier: Apache-2.0
"""Boxes as Gaussians: closed forms against matrix roots and inverses, extremes, invariances, gradients."""

from __future__ import annotations

import math

import pytest
import scipy.linalg
import torch
from torch import Tensor

from vision3d.geometry.rotated import gaussian


def _random(n: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    u = torch.rand(n, 5, generator=draw, dtype=torch.float64)
    low = torch.tensor([0.0, 0.0, 2.0, 2.0, -4.0], dtype=torch.float64)
    high = torch.tensor([60.0, 60.0, 80.0, 40.0, 4.0], dtype=torch.float64)
    return low + u * (high - low)


def _by_matrices(a: Tensor, b: Tensor) -> tuple[float, float, float]:
    (ma, sa), (mb, sb) = gaussian.gaussians(a), gaussian.gaussians(b)
    root = scipy.linalg.sqrtm(sa.numpy())
    cross = scipy.linalg.sqrtm(root @ sb.numpy() @ root)
    gwd = float(((ma - mb) ** 2).sum() + sa.trace() + sb.trace() - 2 * cross.trace().real)
    d = (ma - mb)[:, None]
    kld = (d.T @ sb.inverse() @ d).item() + (sb.inverse() @ sa).trace().item() - 2
    kld = (kld + math.log(sb.det() / sa.det())) / 2
    mid = (sa + sb) / 2
    bd = (d.T @ mid.inverse() @ d).item() / 8 + math.log(mid.det() / torch.sqrt(sa.det() * sb.det())) / 2
    return gwd, kld, bd


def test_closed_forms_agree_with_matrix_roots_and_inverses() -> None:
    a, b = _random(200, 1), _random(200, 2)
    found = torch.stack([gaussian.gwd(a, b), gaussian.kld(a, b), gaussian.bhattacharyya(a, b)], 1)
    wanted = torch.tensor([_by_matrices(x, y) for x, y in zip(a, b, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_touching_equal_circles_overlap_by_the_root_of_one_over_e() -> None:
    a, b = torch.tensor([0.0, 0, 10, 10, 0.3]), torch.tensor([6.0, 8, 10, 10, -1.0])
    assert gaussian.overlap(a, b).item() == pytest.approx(math.exp(-0.5), rel=1e-6)
    assert gaussian.overlap(a, a).item() == 1


def test_analytic_shift_and_scale() -> None:
    a = torch.tensor([0.0, 0, 20, 10, 0], dtype=torch.float64)
    shifted = torch.tensor([3.0, 4, 20, 10, 0], dtype=torch.float64)
    grown = torch.tensor([0.0, 0, 24, 12, 0], dtype=torch.float64)
    assert gaussian.gwd(a, shifted).item() == pytest.approx(25)
    assert gaussian.gwd(a, grown).item() == pytest.approx(2**2 + 1**2)
    assert gaussian.kld(a, shifted).item() == pytest.approx((9 / 100 + 16 / 25) / 2)


@pytest.mark.parametrize("name", ["gwd", "kld", "bhattacharyya", "probiou"])
def test_the_same_box_by_other_numbers_changes_nothing(name: str) -> None:
    function = getattr(gaussian, name)
    a, b = _random(50, 3), _random(50, 4)
    swapped = torch.stack([b[:, 0], b[:, 1], b[:, 3], b[:, 2], b[:, 4] + math.pi / 2], 1)
    turned = b + torch.tensor([0, 0, 0, 0, math.pi], dtype=torch.float64)
    torch.testing.assert_close(function(a, swapped), function(a, b))
    torch.testing.assert_close(function(a, turned), function(a, b))


def test_rigid_motion_and_scale() -> None:
    a, b = _random(50, 5), _random(50, 6)
    c, s = math.cos(0.7), math.sin(0.7)

    def moved(boxes: Tensor, by: float = 1.0) -> Tensor:
        x, y = boxes[:, 0], boxes[:, 1]
        columns = [
            by * (c * x - s * y) + 500,
            by * (s * x + c * y) - 90,
            by * boxes[:, 2],
            by * boxes[:, 3],
            boxes[:, 4] + 0.7,
        ]
        return torch.stack(columns, 1)

    torch.testing.assert_close(gaussian.gwd(moved(a), moved(b)), gaussian.gwd(a, b))
    for name in ("kld", "bhattacharyya", "gwd_loss", "kld_loss", "probiou_loss"):
        function = getattr(gaussian, name)
        torch.testing.assert_close(function(moved(a, 7), moved(b, 7)), function(a, b), msg=name, rtol=1e-5, atol=1e-6)


def test_float32_is_right_for_tiny_thin_and_far_boxes() -> None:
    cases = [
        ([0, 0, 1e-3, 1e-3, 0], [0, 0, 2e-3, 1e-3, 0.4]),
        ([19000, 18000, 3000, 3, 0.61], [19001, 18002, 3001, 3.2, 0.6101]),
        ([5, 5, 4000, 2, 0.2], [5, 5, 2, 4000, 0.2]),
        ([100, 100, 20, 20, 0.1], [100.001, 100, 20, 20, 0.1]),
    ]
    a64, b64 = (torch.tensor([pair[k] for pair in cases], dtype=torch.float32).double() for k in (0, 1))
    for name in ("gwd", "kld", "bhattacharyya"):
        function = getattr(gaussian, name)
        exact = function(a64, b64)
        torch.testing.assert_close(function(a64.float(), b64.float()).double(), exact, rtol=2e-3, atol=2e-6, msg=name)


def test_far_pairs_neither_overlap_nor_pull() -> None:
    a = torch.tensor([[0.0, 0, 10, 10, 0]], requires_grad=True)
    far = torch.tensor([[4000.0, 0, 10, 10, 0]])
    value = gaussian.overlap(a, far)
    value.sum().backward()
    assert value.item() == 0
    assert torch.equal(a.grad, torch.zeros_like(a))


@pytest.mark.parametrize("name", ["gwd", "kld", "bhattacharyya", "gwd_loss", "kld_loss", "probiou_loss"])
def test_gradients_are_finite_at_equal_zero_and_far_boxes(name: str) -> None:
    boxes = torch.tensor(
        [[3.0, 4, 10, 5, 0.2], [3, 4, 0, 0, 0], [0, 0, 0, 9, 1], [1e5, 0, 8, 8, 0]], requires_grad=True
    )
    others = torch.tensor([[3.0, 4, 10, 5, 0.2], [3, 4, 0, 0, 0], [0, 0, 9, 0, 1], [0, 0, 8, 8, 0]])
    value = getattr(gaussian, name)(boxes, others)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(boxes.grad).all()


@pytest.mark.parametrize("name", ["gwd", "kld", "bhattacharyya", "gwd_loss", "kld_loss", "probiou_loss"])
def test_gradients_agree_with_differences(name: str) -> None:
    a = _random(6, 7).requires_grad_()
    b = _random(6, 8).requires_grad_()
    assert torch.autograd.gradcheck(getattr(gaussian, name), (a, b), eps=1e-5, atol=1e-5)


def test_matrix_by_broadcasting() -> None:
    a, b = _random(4, 9), _random(3, 10)
    matrix = gaussian.overlap(a[:, None], b[None])
    assert matrix.shape == (4, 3)
    assert matrix[2, 1].item() == pytest.approx(gaussian.overlap(a[2], b[1]).item())


@pytest.mark.parametrize("name", ["gwd_loss", "kld_loss", "probiou_loss"])
def test_descending_a_loss_finds_the_box(name: str) -> None:
    target = torch.tensor([[30.0, 20, 24, 8, 0.6]])
    found = torch.tensor([[33.0, 18, 16, 12, 0.2]], requires_grad=True)
    descent = torch.optim.Adam([found], lr=0.05)
    for _ in range(800):
        descent.zero_grad()
        getattr(gaussian, name)(found, target).sum().backward()
        descent.step()
    torch.testing.assert_close(found.detach()[:, :4], target[:, :4], rtol=0.02, atol=0.3)
    assert abs(math.sin(found[0, 4].item() - 0.6)) < 0.03
