# SPDX-License-Identifier: Apache-2.0
"""The detector's losses: 0 at the truth, weights, gradients, order."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detection.fcos import angles
from detection.fcos.assign import assign
from detection.fcos.config import FcosConfig
from detection.fcos.losses import angle_loss, focal, losses_of
from detection.fcos.network import Answers, FcosNet, boxes_of, cells_of
from detection.networks.config import BackboneConfig

CONFIG = FcosConfig(convs=1)
BOXES = torch.tensor(
    [[20.0, 18.0, 24.0, 8.0, 0.4], [44.0, 40.0, 16.0, 15.0, -1.2], [30.0, 30.0, 40.0, 12.0, 1.3]], dtype=torch.float32
)
LABELS = torch.tensor([0, 2, 1])
IMAGE = torch.tensor([0, 0, 1])
ONES = torch.ones(3)


def perfect() -> Answers:
    """What a network would say that knows the truth."""
    cells = cells_of([torch.zeros(1, 1, 64 // s, 64 // s) for s in (4, 8, 16, 32)], (4, 8, 16, 32))
    owner = assign(BOXES, IMAGE, 2, cells, CONFIG.reach, CONFIG.radius)
    taken = owner >= 0
    boxes = torch.where(taken[..., None], BOXES[owner.clamp_min(0)], torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0]))
    logits = torch.full((*owner.shape, 3), -20.0)
    logits[taken] = 40.0 * F.one_hot(LABELS[owner[taken]], 3).float() - 20.0
    quality = torch.where(taken, 20.0, -20.0)
    return Answers(logits, boxes, angles.encode(boxes[..., 4]), quality, cells)


def small_net() -> FcosNet:
    torch.manual_seed(0)
    return FcosNet(CONFIG, BackboneConfig(width=8, channels=16), ("a", "b", "c"))


def terms_of(net: FcosNet, boxes: Tensor, labels: Tensor, weights: Tensor, image: Tensor) -> dict[str, Tensor]:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return losses_of(net(images), boxes, labels, weights, image, CONFIG)


def plain(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


def test_nothing_to_lose_at_the_truth() -> None:
    for name, term in losses_of(perfect(), BOXES, LABELS, ONES, IMAGE, CONFIG).items():
        assert abs(float(term)) < 2e-3, name


def test_every_error_costs_in_its_own_term() -> None:
    truth = perfect()
    wrong = {
        "class": truth._replace(logits=truth.logits.roll(1, -1)),
        "box": truth._replace(boxes=truth.boxes * torch.tensor([1, 1, 2, 1, 1])),
        "angle": truth._replace(codes=truth.codes.roll(1, -1)),
        "quality": truth._replace(quality=-truth.quality),
    }
    for name, answers in wrong.items():
        assert float(losses_of(answers, BOXES, LABELS, ONES, IMAGE, CONFIG)[name]) > 0.05, name


def test_focal_loss_by_hand() -> None:
    logits, targets = torch.tensor([0.0, 2.0, -1.0]), torch.tensor([1.0, 0.0, 0.0])
    p = torch.sigmoid(logits)
    expected = [
        0.25 * 0.25 * math.log(2),
        0.75 * p[1] ** 2 * -math.log(1 - p[1]),
        0.75 * p[2] ** 2 * -math.log(1 - p[2]),
    ]
    torch.testing.assert_close(focal(logits, targets), torch.tensor([float(value) for value in expected]))


def test_a_square_may_be_turned_by_a_quarter() -> None:
    square, long = torch.tensor([[0.0, 0.0, 10.0, 10.0, 0.3]]), torch.tensor([[0.0, 0.0, 20.0, 10.0, 0.3]])
    turned = angles.encode(torch.tensor([0.3 + math.pi / 2]))
    assert float(angle_loss(turned, square)) < 1e-9
    assert float(angle_loss(turned, long)) > 0.2


def test_only_ratios_of_weights_matter() -> None:
    net = small_net()
    weights = torch.tensor([0.2, 0.9, 0.5])
    first = terms_of(net, BOXES, LABELS, weights, IMAGE)
    second = terms_of(net, BOXES, LABELS, weights / 10, IMAGE)
    for name in first:
        torch.testing.assert_close(first[name], second[name])
    assert plain(terms_of(net, BOXES, LABELS, ONES, IMAGE))["box"] != pytest.approx(plain(first)["box"])


def test_a_box_of_no_weight_is_ignored() -> None:
    """Its cells neither attract nor repel: the losses are those of whatever box it is."""
    net = small_net()
    weights = torch.tensor([1.0, 0.0, 1.0])
    other = BOXES.clone()
    other[1, 2:] = torch.tensor([15.5, 15.0, 0.9])
    first = terms_of(net, BOXES, LABELS, weights, IMAGE)
    second = terms_of(net, other, LABELS, weights, IMAGE)
    for name in first:
        torch.testing.assert_close(first[name], second[name])


def test_order_of_objects_does_not_matter() -> None:
    net, order = small_net(), torch.tensor([2, 0, 1])
    first = terms_of(net, BOXES, LABELS, ONES, IMAGE)
    second = terms_of(net, BOXES[order], LABELS[order], ONES, IMAGE[order])
    for name in first:
        torch.testing.assert_close(first[name], second[name])


def test_images_without_objects_teach_what_is_not_there() -> None:
    net, none = small_net(), torch.zeros(0)
    terms = terms_of(net, torch.zeros(0, 5), none.long(), none, none.long())
    values = plain(terms)
    assert values["class"] > 0
    assert values["box"] == values["angle"] == values["quality"] == 0
    sum(terms.values()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())


def test_every_parameter_gets_a_gradient() -> None:
    net = small_net()
    sum(terms_of(net, BOXES, LABELS, ONES, IMAGE).values()).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_gradient_of_decoded_boxes() -> None:
    cells = cells_of([torch.zeros(1, 1, 2, 2)], (8,))
    generator = torch.Generator().manual_seed(2)
    offsets = torch.randn(1, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    codes = angles.encode(torch.tensor([[0.1, -0.4, 1.0, 1.5]], dtype=torch.float64))
    cells = cells._replace(centers=cells.centers.double(), strides=cells.strides.double())
    assert torch.autograd.gradcheck(lambda x: boxes_of(x, codes, cells), offsets)
    still = boxes_of(torch.zeros_like(offsets), codes, cells)
    torch.testing.assert_close(
        still[0, :, :2], torch.tensor([[3.5, 3.5], [11.5, 3.5], [3.5, 11.5], [11.5, 11.5]]).double()
    )
    assert (still[0, :, 2:4] == 32).all()


@pytest.mark.parametrize("name", ["box", "angle", "quality"])
def test_weights_of_terms(name: str) -> None:
    answers = perfect()
    answers = answers._replace(boxes=answers.boxes * 1.1, codes=answers.codes * 0.5, quality=-answers.quality)
    heavier = replace(CONFIG, **{f"{name}_weight": 3 * getattr(CONFIG, f"{name}_weight")})
    once = plain(losses_of(answers, BOXES, LABELS, ONES, IMAGE, CONFIG))
    thrice = plain(losses_of(answers, BOXES, LABELS, ONES, IMAGE, heavier))
    assert {key for key in once if once[key] != thrice[key]} == {name}
    assert thrice[name] == pytest.approx(3 * once[name])
