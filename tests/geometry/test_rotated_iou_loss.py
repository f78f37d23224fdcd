# SPDX-License-Identifier: Apache-2.0
"""The overlap that gradients pass through. Its values are tested with the other versions in test_rotated_iou.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vision3d.geometry import rotated
from vision3d.geometry.rotated.iou_loss import iou_loss, paired_iou


def meeting_pairs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pairs in general position that overlap, neither holding the other."""
    rng = np.random.default_rng(seed)
    a = np.column_stack([rng.uniform(0, 20, (n, 2)), rng.uniform(8, 30, (n, 2)), rng.uniform(-4, 4, n)])
    b = a + np.column_stack([rng.normal(0, 4, (n, 2)), rng.uniform(-4, 4, (n, 2)), rng.normal(0, 0.4, n)])
    b[:, 2:4] = np.maximum(b[:, 2:4], 2)
    return torch.from_numpy(a), torch.from_numpy(b)


def test_gradients_are_those_of_finite_differences() -> None:
    a, b = meeting_pairs(25, 0)
    assert torch.autograd.gradcheck(paired_iou, (a.requires_grad_(), b.requires_grad_()), atol=1e-6)


def test_gradients_of_a_square_inside_a_square() -> None:
    """IoU = w h / 64: known by hand."""
    a = torch.tensor([[0.5, 0.2, 4.0, 2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[0.0, 0.0, 8.0, 8.0, 0.0]], dtype=torch.float64)
    value = paired_iou(a, b)
    value.sum().backward()
    assert value.item() == pytest.approx(8 / 64)
    np.testing.assert_allclose(a.grad, [[0, 0, 2 / 64, 4 / 64, 0]], atol=1e-12)


@pytest.mark.parametrize("quarters", [0, 1, 2, -1, 4])
@pytest.mark.parametrize("noise", [0.0, 1e-16, 1e-13, 1e-11, -1e-10, 1e-8])
def test_gradients_keep_their_digits_where_sides_are_almost_parallel(quarters: int, noise: float) -> None:
    a = torch.tensor([[3.0, 2, 20, 8, 0.3]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[0.0, 0, 18, 9, 0.3 + quarters * np.pi / 2 + noise]], dtype=torch.float64)
    if quarters % 2:
        b = b[:, [0, 1, 3, 2, 4]]
    paired_iou(a, b).sum().backward()
    # From a pair whose sides are 1e-5 rad apart, by finite differences.
    apart = b.detach() + torch.tensor([0, 0, 0, 0, 1e-5])
    step = 1e-6 * torch.eye(5, dtype=torch.float64)
    there, back = (paired_iou(a.detach() + s * step, apart.expand(5, 5)) for s in (1, -1))
    np.testing.assert_allclose(a.grad[0], (there - back) / 2e-6, atol=1e-4)


def test_boxes_that_coincide_touch_or_have_no_size_give_finite_gradients() -> None:
    rows = [
        ((1, 2, 30, 8, 0.4), (1, 2, 30, 8, 0.4)),
        ((1, 2, 30, 8, 0.4), (1, 2, 8, 30, 0.4 + np.pi / 2)),
        ((0, 0, 4, 4, 0), (4, 0, 4, 4, 0)),
        ((0, 0, 4, 4, 0), (40, 0, 4, 4, 0.2)),
        ((0, 0, 0, 0, 0), (0, 0, 4, 4, 0)),
        ((0, 0, 0, 0, 0), (0, 0, 0, 0, 0)),
        ((0, 0, 1e-7, 2000, 1.7), (10, 30, 300, 300, 3.1)),
    ]
    for mode in ("linear", "log"):
        a = torch.tensor([row[0] for row in rows], dtype=torch.float64, requires_grad=True)
        b = torch.tensor([row[1] for row in rows], dtype=torch.float64)
        loss = iou_loss(a, b, mode)  # type: ignore[arg-type]
        loss.sum().backward()
        assert loss.isfinite().all() and a.grad is not None and a.grad.isfinite().all()
        assert loss[0].item() == pytest.approx(0, abs=1e-9)
        # Apart: the largest loss, and nothing to follow.
        assert a.grad[3].abs().max() == 0
        assert loss[3].item() == pytest.approx(1 if mode == "linear" else -np.log(1e-6))


@pytest.mark.parametrize("mode", ["linear", "log"])
def test_following_the_loss_brings_a_box_onto_its_target(mode: str) -> None:
    target = torch.tensor([[30.0, 20.0, 40.0, 12.0, 0.5]], dtype=torch.float64)
    scale = torch.tensor([20.0, 20.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    free = torch.tensor([[1.2, 1.2, np.log(28.0), np.log(20.0), 0.1]], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([free], lr=0.04)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150)
    for _ in range(150):
        optimizer.zero_grad()
        x = free * scale
        box = torch.cat([x[:, :2], x[:, 2:4].exp(), x[:, 4:]], dim=1)
        iou_loss(box, target, mode).sum().backward()  # type: ignore[arg-type]
        optimizer.step()
        schedule.step()
    assert rotated.iou_pairs(box.detach().numpy(), target.numpy())[0] > 0.97


def test_the_dtype_of_the_prediction_is_kept() -> None:
    a, b = meeting_pairs(50, 3)
    for dtype in (torch.float32, torch.bfloat16):
        assert paired_iou(a.to(dtype), b.to(dtype)).dtype == dtype
    expected = paired_iou(a.float().double(), b.float().double())
    np.testing.assert_allclose(paired_iou(a.float(), b.float()), expected, atol=1e-6)
    assert paired_iou(a[:0], b[:0]).shape == (0,)


def test_wrong_arguments_are_refused() -> None:
    a, b = meeting_pairs(3, 0)
    with pytest.raises(ValueError, match=r"\(N, 5\) twice"):
        paired_iou(a, b[:2])
    with pytest.raises(ValueError, match="mode must be"):
        iou_loss(a, b, "square")  # type: ignore[arg-type]
