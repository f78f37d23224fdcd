# SPDX-License-Identifier: Apache-2.0
"""One oriented box per point, by a trained PointOBB network."""

from __future__ import annotations

import numpy as np
import torch

from detection.pointobb.bags import Bags, base_bag, base_scales
from detection.pointobb.dense_to_sparse import assign_angles, level_angles
from detection.pointobb.network import PointObbNet
from detection.pointobb.refine import mean_angles
from detection.pointobb.schedule import Phase
from detection.pointobb.views import original, pad_to_multiple
from detection.pointobb.windows import label_with_network
from detection.problem import Float, Image, Int
from vision3d.geometry import rotated


class PointObbLabeller:
    """Implements :class:`detection.problem.Labeller`.

    Boxes carry predicted angles once the network's training came to that phase; its ``progress`` says so, also after
    loading. The first bag's sizes follow the side of the training crops and not that of the image at hand: pixels mean
    the same as in training.
    """

    def __init__(self, net: PointObbNet) -> None:
        self.net = net

    def label(self, image: Image, points: Float, labels: Int) -> tuple[Float, Float]:
        """(H, W, 3) uint8, (N, 2) pixels, (N,) classes -> (N, 5) le90 boxes and (N,) scores, rows as given."""
        return label_with_network(self.net, image, points, labels, self._label)

    @torch.no_grad()
    def _label(self, image: Image, points: Float, labels: Int) -> tuple[Float, Float]:
        net, config = self.net, self.net.config
        device = net.side_px.device
        height, width = image.shape[:2]
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float() / 255
        border = torch.tensor([[-0.5, -0.5, width - 0.5, height - 0.5]], device=device)
        frame = original(pixels, border)
        features = net.backbone(pad_to_multiple(pixels))
        at = torch.from_numpy(points).float().to(device)
        known = torch.from_numpy(labels).long().to(device)
        rows = torch.zeros_like(known)
        scales = base_scales(at, rows, float(net.side_px), config)
        angles = None
        if net.phase == Phase.ASSIGN:
            near = net.codes(features, at, rows)
            angles = level_angles(near.sums, near.numbers, near.nearest)
            angles = torch.where(net.round_classes[known][:, None], 0.0, angles)
        coarse_boxes, found, scores = [], [], []
        # The second bag is the larger one; portions keep the memory of all that is made per proposal bounded.
        portion = max(1, config.max_rois // (5 * len(config.factors) ** 2))
        for start in range(0, len(at), portion):
            part = slice(start, start + portion)
            boxes = base_bag(at[part], scales[part], config.ratios, border.expand(len(at[part]), 4))
            if angles is not None:
                boxes = assign_angles(boxes, angles[part], config.level_unit_px)
            bags = Bags(boxes, torch.ones_like(boxes[..., 0], dtype=torch.bool), rows[part])
            coarse_boxes.append(net.found(net.score(features, bags, 0), known[part], frame.size)[0])
        coarse_all = torch.cat(coarse_boxes)
        mean_angle = mean_angles(coarse_all[:, 4], rows)
        for start in range(0, len(at), portion):
            part = slice(start, start + portion)
            coarse = coarse_all[part]
            second = net.second_bag(coarse, rows[part], frame, mean_angle[part])
            fine, score = net.found(net.score(features, second, 1), known[part], frame.size)
            none = ~second.valid.any(1)
            found.append(torch.where(none[:, None], coarse, fine))
            scores.append(torch.where(none, 0.0, score))
        boxes = torch.cat(found)
        # The authors' table is at work together with the angles only (step 13).
        factors = net.size_factors[known][:, None] if angles is not None else 1.0
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:4] * factors, boxes[:, 4:]), 1)
        return rotated.canonical(boxes.double().cpu().numpy()), torch.cat(scores).double().cpu().numpy()
