# SPDX-License-Identifier: Apache-2.0
"""Multiple-instance learning and scale consistency, in cases with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from detection.pointobb.mil import (
    BagHead,
    bag_probability,
    coarse_loss,
    instance_probabilities,
    label_scores,
    negative_loss,
    read_out,
    refine_loss,
)
from detection.pointobb.scale_consistency import scale_consistency

G, N, C = 3, 8, 4


def logits(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(G, N, C, generator=generator), torch.randn(G, N, C, generator=generator)


def test_permuting_proposals_permutes_scores_and_leaves_the_bag() -> None:
    cls, ins = logits()
    valid = torch.rand(G, N, generator=torch.Generator().manual_seed(1)) > 0.3
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    labels = torch.tensor([0, 2, 3])
    a = (cls.softmax(2), instance_probabilities(ins, valid))
    b = (cls[:, order].softmax(2), instance_probabilities(ins[:, order], valid[:, order]))
    torch.testing.assert_close(bag_probability(*a), bag_probability(*b))
    torch.testing.assert_close(label_scores(*a, labels)[:, order], label_scores(*b, labels))


def test_one_hot_instances_reduce_to_the_class_probability() -> None:
    cls, ins = logits()
    ins[:, 5] += 1e4
    found = bag_probability(cls.softmax(2), instance_probabilities(ins, torch.ones(G, N, dtype=torch.bool)))
    torch.testing.assert_close(found, cls.softmax(2)[:, 5])


def test_masked_proposals_contribute_nothing() -> None:
    cls, ins = logits()
    valid = torch.ones(G, N, dtype=torch.bool)
    valid[:, 3:] = False
    found = instance_probabilities(ins, valid)
    torch.testing.assert_close(found[:, :3], ins[:, :3].softmax(1))
    assert not found[:, 3:].any()
    other = ins.clone()
    other[:, 3:] = 1e6
    torch.testing.assert_close(instance_probabilities(other, valid), found)


def test_a_bag_without_a_valid_proposal_has_no_loss_and_finite_gradients() -> None:
    cls, ins = (x.requires_grad_() for x in logits())
    valid = torch.ones(G, N, dtype=torch.bool)
    valid[1] = False
    labels, counts = torch.tensor([0, 1, 2]), valid.any(1)
    probability = bag_probability(cls.softmax(2), instance_probabilities(ins, valid))
    loss = coarse_loss(probability, labels, counts)
    loss.backward()
    assert cls.grad is not None
    assert ins.grad is not None
    assert torch.isfinite(cls.grad).all()
    assert torch.isfinite(ins.grad).all()
    assert not cls.grad[1].any()
    two = coarse_loss(probability[[0, 2]], labels[[0, 2]], counts[[0, 2]])
    torch.testing.assert_close(two, loss)
    none = torch.zeros(G, N, dtype=torch.bool)
    probability = bag_probability(cls.softmax(2), instance_probabilities(ins, none))
    for loss in (
        coarse_loss(probability, labels, none.any(1)),
        refine_loss(probability, labels, torch.ones(G), none.any(1)),
    ):
        assert float(loss.detach()) == 0
        loss.backward(retain_graph=True)
        assert torch.isfinite(cls.grad).all()


def test_losses_by_hand() -> None:
    p = torch.tensor([[0.2, 0.7, 0.1], [0.5, 0.25, 0.25]])
    labels, counts = torch.tensor([1, 0]), torch.ones(2)
    entropy = [-math.log(0.8) - math.log(0.7) - math.log(0.9), -math.log(0.5) - 2 * math.log(0.75)]
    assert float(coarse_loss(p, labels, counts)) == pytest.approx(sum(entropy) / 2, rel=1e-6)
    focal = [
        0.04 * -math.log(0.8) + 0.09 * -math.log(0.7) + 0.01 * -math.log(0.9),
        0.25 * -math.log(0.5) + 2 * 0.0625 * -math.log(0.75),
    ]
    weights = torch.tensor([0.5, 0.25])
    wanted = (0.5 * focal[0] + 0.25 * focal[1]) / 2
    assert float(refine_loss(p, labels, weights, counts)) == pytest.approx(wanted, rel=1e-6)
    counted = torch.tensor([1.0, 0.0])
    wanted = 0.3 * (0.04 * -math.log(0.8) + 0.49 * -math.log(0.3) + 0.01 * -math.log(0.9)) / 5
    assert float(negative_loss(p, counted, torch.tensor(0.3), 5)) == pytest.approx(wanted, rel=1e-6)


def test_a_probability_above_one_by_rounding_is_clamped() -> None:
    cls = torch.ones(1, 70, 2)
    ins = torch.full((1, 70, 2), 1 / 70 + 1e-7)
    probability = bag_probability(cls, ins)
    assert float(probability.max()) <= 1
    assert math.isfinite(float(coarse_loss(probability, torch.tensor([0]), torch.ones(1))))


def test_the_mean_of_89_and_minus_89_degrees_is_90() -> None:
    """Card, check 7, and the published slip beside it."""
    boxes = torch.tensor([[[10.0, 20, 30, 8, math.radians(89)], [12, 20, 34, 8, math.radians(-89)]]]).double()
    scores = torch.tensor([[0.5, 0.5]]).double()
    found = read_out(boxes, scores, 7)[0]
    np.testing.assert_allclose(found[:4], [11, 20, 32, 8])
    assert abs(math.degrees(float(found[4]))) == pytest.approx(90, abs=1e-6)
    assert float(read_out(boxes, scores, 7, axial=False)[0, 4]) == pytest.approx(0, abs=1e-12)


def test_read_out_takes_the_best_weighted_and_stops_the_gradient() -> None:
    boxes = torch.arange(50.0).reshape(1, 10, 5).requires_grad_()
    scores = torch.tensor([[0, 0, 0.1, 0, 0.3, 0, 0, 0, 0, 0]])
    found = read_out(boxes, scores, 2, axial=False)
    assert not found.requires_grad
    torch.testing.assert_close(found[0], 0.25 * boxes[0, 2].detach() + 0.75 * boxes[0, 4].detach())
    assert torch.isfinite(read_out(boxes, torch.zeros(1, 10), 7)).all()


def test_the_head_has_a_background_in_the_first_stage_only() -> None:
    head = BagHead(12, 16, 5)
    pooled = torch.randn(7, 12)
    assert [x.shape[1] for x in head(pooled, 0)] == [6, 6]
    assert [x.shape[1] for x in head(pooled, 1)] == [5, 5]


class TestScaleConsistency:
    valid = torch.ones(2, 6, dtype=torch.bool)
    counts = torch.ones(2, dtype=torch.bool)

    def loss(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return scale_consistency(a, b, self.valid, 3, self.counts)

    def test_nothing_between_identical_views(self) -> None:
        scores = torch.rand(2, 6, 4, generator=torch.Generator().manual_seed(0)).double()
        assert float(self.loss(scores, scores)) == pytest.approx(0, abs=1e-12)

    def test_scaling_both_changes_nothing(self) -> None:
        generator = torch.Generator().manual_seed(0)
        a, b = torch.rand(2, 6, 4, generator=generator).double(), torch.rand(2, 6, 4, generator=generator).double()
        assert float(self.loss(a, b)) > 0
        assert float(self.loss(3 * a, 0.1 * b)) == pytest.approx(float(self.loss(a, b)), rel=1e-9)

    def test_orthogonal_views_give_a_half(self) -> None:
        a, b = torch.zeros(2, 6, 2), torch.zeros(2, 6, 2)
        a[..., 0], b[..., 1] = 1, 1
        assert float(self.loss(a, b)) == pytest.approx(0.5)

    def test_gradients_flow_into_both(self) -> None:
        generator = torch.Generator().manual_seed(0)
        a = torch.rand(2, 6, 4, generator=generator).requires_grad_()
        b = torch.rand(2, 6, 4, generator=generator).requires_grad_()
        self.loss(a, b).backward()
        assert a.grad is not None
        assert b.grad is not None
        assert float(a.grad.abs().min()) > 0
        assert float(b.grad.abs().min()) > 0

    def test_groups_without_a_proposal_do_not_count(self) -> None:
        a, b = torch.zeros(1, 4, 2), torch.zeros(1, 4, 2)
        a[..., 0], b[..., 1] = 1, 1
        valid = torch.tensor([[True, True, False, False]])
        a.requires_grad_()
        loss = scale_consistency(a, b, valid, 2, torch.ones(1, dtype=torch.bool))
        assert float(loss.detach()) == pytest.approx(0.5)
        loss.backward()
        assert a.grad is not None
        assert torch.isfinite(a.grad).all()
        assert float(scale_consistency(a, b, valid, 2, torch.zeros(1, dtype=torch.bool)).detach()) == 0
