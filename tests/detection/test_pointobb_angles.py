# SPDX-License-Identifier: Apache-2.0
"""Angles of PointOBB: the coder, the self-supervised loss, and the way from cells to proposals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from detection.pointobb.angle_coder import decode, encode, wrap
from detection.pointobb.angle_consistency import angle_loss
from detection.pointobb.angle_head import AngleHead
from detection.pointobb.dense_to_sparse import assign_angles, level_angles, near_codes, object_angles

STRIDES = (4, 8, 16, 32)


class TestCoder:
    def test_round_trip(self) -> None:
        """Card, check 4."""
        theta = torch.linspace(-math.pi / 2, math.pi / 2, 1001, dtype=torch.float64)[:-1]
        found = decode(encode(theta))
        assert float(wrap(found - theta).abs().max()) < 1e-6
        assert float(found.min()) >= -math.pi / 2
        assert float(found.max()) < math.pi / 2

    def test_continuous_across_the_border(self) -> None:
        theta = math.pi / 2 + torch.linspace(-1e-3, 1e-3, 201, dtype=torch.float64)
        codes = encode(theta)
        assert float(codes.diff(dim=0).abs().max()) < 1e-4
        found = wrap(decode(codes) - theta)
        assert float(found.abs().max()) < 1e-9
        assert float(wrap(decode(codes).diff()).abs().max()) < 1e-4

    def test_factor_and_offset_do_not_matter(self) -> None:
        theta = torch.linspace(-1.5, 1.5, 50, dtype=torch.float64)
        torch.testing.assert_close(decode(0.1 * encode(theta) + 3), decode(encode(theta)))

    def test_equal_codes_have_an_angle_and_a_finite_gradient(self) -> None:
        codes = torch.zeros(4, 3, requires_grad=True)
        found = decode(codes)
        found.sum().backward()
        assert not found.any()
        assert codes.grad is not None
        assert torch.isfinite(codes.grad).all()

    def test_wrap(self) -> None:
        degrees = torch.tensor([0.0, 90, -90, 179, -91, 361], dtype=torch.float64)
        found = torch.rad2deg(wrap(torch.deg2rad(degrees)))
        np.testing.assert_allclose(found, [0, -90, -90, -1, 89, 1], atol=1e-9)


class TestConsistency:
    """Card, check 5."""

    theta = torch.linspace(-1.5, 1.5, 40, dtype=torch.float64)
    counts = torch.ones(40, dtype=torch.bool)

    @pytest.mark.parametrize("rotation", [0.8, 1.5, 2.3])
    @pytest.mark.parametrize("offset", [0.0, 0.3, -1.2])
    def test_any_constant_offset_has_no_loss_under_rotation(self, rotation: float, offset: float) -> None:
        first = wrap(self.theta + offset)
        second = wrap(self.theta + rotation + offset)
        assert float(angle_loss(first, second, rotation, False, self.counts, self.counts)) == pytest.approx(
            0, abs=1e-12
        )

    @pytest.mark.parametrize("offset", [0.0, math.pi / 2])
    def test_flips_allow_only_0_and_90_degrees(self, offset: float) -> None:
        found = angle_loss(wrap(self.theta + offset), wrap(-self.theta + offset), 0.0, True, self.counts, self.counts)
        assert float(found) == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize("offset", [0.2, -0.7, 1.2])
    def test_flips_see_every_other_offset(self, offset: float) -> None:
        found = angle_loss(wrap(self.theta + offset), wrap(-self.theta + offset), 0.0, True, self.counts, self.counts)
        away = abs(float(wrap(torch.tensor(2 * offset))))
        assert float(found) == pytest.approx(away - 0.05 if away > 0.1 else away**2 / 0.2, rel=1e-6)

    def test_objects_that_do_not_count_add_nothing(self) -> None:
        second = self.theta.clone()
        second[7] += 1
        counts = self.counts.clone()
        counts[7] = False
        every = self.counts

        def loss(paired: Tensor, directed: Tensor) -> float:
            return float(angle_loss(self.theta, second, 0.0, False, paired, directed))

        assert loss(counts, every) == pytest.approx(0, abs=1e-12)
        assert loss(every, counts) == pytest.approx(0, abs=1e-12)
        assert loss(every, every) > 0
        assert loss(~every, every) == 0
        # Objects without a direction have no loss, and still count in the mean.
        half = every.clone()
        half[20:] = False
        assert loss(every, half) == pytest.approx(loss(half, every) / 2)


def constant_maps(angles: list[float], batch: int = 1, side: int = 128) -> list[Tensor]:
    return [
        encode(torch.tensor(angle)).view(1, 3, 1, 1).expand(batch, 3, side // stride, side // stride)
        for angle, stride in zip(angles, STRIDES)
    ]


class TestDenseToSparse:
    angles = (-1.0, -0.2, 0.5, 1.3)
    points = torch.tensor([[30.0, 40.0], [90.0, 70.0]])
    rows = torch.zeros(2, dtype=torch.long)

    def test_each_proposal_gets_the_angle_of_its_level(self) -> None:
        """Card, check 6, with the cells and by the fallback where no cell is valid."""
        near = near_codes(constant_maps(list(self.angles)), STRIDES, self.points, self.rows)
        sides = torch.tensor([10.0, 60, 113, 200, 230, 400, 460, 900])
        boxes = torch.zeros(2, 8, 5)
        boxes[..., 2:4] = sides[None, :, None]
        wanted = torch.tensor(self.angles)[torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])]
        yes = torch.ones(2, dtype=torch.bool)
        for counts in (None, yes, ~yes):
            found = assign_angles(boxes, level_angles(*near, counts), 56.0)
            torch.testing.assert_close(found[..., 4], wanted.expand(2, 8), rtol=0, atol=1e-5)
            torch.testing.assert_close(found[..., :4], boxes[..., :4])
        # Assigned, not added.
        boxes[..., 4] = 0.7
        torch.testing.assert_close(
            assign_angles(boxes, level_angles(*near), 56.0)[..., 4], wanted.expand(2, 8), rtol=0, atol=1e-5
        )

    def test_cells_equal_a_search_over_all(self) -> None:
        rng = np.random.default_rng(0)
        points = rng.uniform(-2, 129, (40, 2))
        images = rng.integers(0, 2, 40)
        generator = torch.Generator().manual_seed(0)
        codes = [torch.randn(2, 3, 128 // s, 128 // s, generator=generator).double() for s in STRIDES]
        found = near_codes(codes, STRIDES, torch.from_numpy(points), torch.from_numpy(images))
        for k, stride in enumerate(STRIDES):
            side = 128 // stride
            sums, numbers = np.zeros((40, 3)), np.zeros(40, int)
            for image in range(2):
                for row in range(side):
                    for column in range(side):
                        centre = np.array([(column + 0.5) * stride - 0.5, (row + 0.5) * stride - 0.5])
                        away = np.abs(points - centre)
                        claims = np.flatnonzero((images == image) & (away < 1.5 * stride).all(1))
                        if len(claims):
                            owner = claims[np.argmin((away[claims] ** 2).sum(1))]
                            sums[owner] += codes[k][image, :, row, column].numpy()
                            numbers[owner] += 1
            np.testing.assert_array_equal(found[1][:, k], numbers)
            np.testing.assert_allclose(found[0][:, k], sums, atol=1e-12)
            near = np.clip(np.rint((points + 0.5) / stride - 0.5), 0, side - 1).astype(int)
            wanted = codes[k].numpy()[images, :, near[:, 1], near[:, 0]]
            np.testing.assert_allclose(found[2][:, k], wanted)

    def test_one_angle_per_object_and_no_gradient_into_the_proposals(self) -> None:
        maps = [x.clone().requires_grad_() for x in constant_maps([0.4] * 4)]
        near = near_codes(maps, STRIDES, self.points, self.rows)
        found = object_angles(*near)
        np.testing.assert_allclose(found.detach(), [0.4, 0.4], atol=1e-5)
        assert not level_angles(*near).requires_grad
        found.sum().backward()
        assert all(level.grad is not None and bool(level.grad.any()) for level in maps)


def test_the_head_gives_a_code_in_every_cell() -> None:
    torch.manual_seed(0)
    head = AngleHead(8, 16)
    features = [torch.randn(2, 8, 16, 16), torch.randn(2, 8, 8, 8)]
    found = head(features)
    assert [tuple(level.shape) for level in found] == [(2, 3, 16, 16), (2, 3, 8, 8)]
    assert float(found[0].detach().std()) > 0.1
