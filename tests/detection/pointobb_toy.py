# SPDX-License-Identifier: Apache-2.0
"""Rectangles of three classes on texture, for trainings of a few minutes. True boxes lie beside the samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vision3d.geometry import rotated
from vision3d.types import BoxTruth, LabeledImage

CLASSES = ("truck", "ship", "tank")
# Length and width in pixels, and the colours of the two ends around a grey middle: it takes both ends to tell a class.
KINDS = ((36.0, 15.0, 0, 1), (42.0, 14.0, 1, 2), (30.0, 14.0, 2, 0))
COLORS = ((205, 150, 145), (145, 150, 205), (145, 205, 150))


class Rectangles:
    """A reader of ``scenes`` images of ``side`` pixels with a few rectangles each, drawn from the seed.

    Args:
        wrong_boxes: hand out random boxes as truth: what learns from points must not notice.
        upright: all rectangles lie along the image's x axis.
    """

    name = "rectangles"

    def __init__(
        self,
        scenes: int = 16,
        side: int = 96,
        objects: int = 4,
        seed: int = 0,
        wrong_boxes: bool = False,
        upright: bool = False,
    ) -> None:
        self.scenes, self.side, self.objects, self.seed, self.wrong = scenes, side, objects, seed, wrong_boxes
        self.upright = upright
        self._made = [self._make(k) for k in range(scenes)]

    def __len__(self) -> int:
        return self.scenes

    def key(self, index: int) -> str:
        return f"{index:03d}"

    def __getitem__(self, index: int) -> LabeledImage:
        image, boxes, labels, points = self._made[index]
        return LabeledImage(self.key(index), image, CLASSES, points, labels, np.arange(len(boxes)))

    def truth(self, index: int) -> BoxTruth:
        image, boxes, labels, _ = self._made[index]
        if self.wrong:
            rng = np.random.default_rng(99 + index)
            boxes = rotated.canonical(rng.uniform([0, 0, 5, 5, -1], [90, 90, 60, 60, 1], boxes.shape))
        difficult = np.zeros(len(boxes), np.uint8)
        return BoxTruth(boxes, labels, difficult, rotated.corners(boxes), CLASSES, (self.side, self.side))

    def _make(
        self, index: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
        rng = np.random.default_rng([self.seed, index])
        side = self.side
        coarse = rng.normal(0, 12, (side // 8 + 1, side // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)[:side, :side]
        image = 105 + coarse + rng.normal(0, 10, (side, side, 3))
        boxes: list[NDArray[np.float64]] = []
        labels: list[int] = []
        for _ in range(200):
            if len(boxes) == self.objects:
                break
            kind = int(rng.integers(3))
            length, width = KINDS[kind][:2]
            scale = rng.uniform(0.8, 1.25)
            box = np.array([*rng.uniform(22, side - 23, 2), length * scale, width * scale, rng.uniform(-1.57, 1.57)])
            if self.upright:
                box[4] = 0.0
            grown = np.array([box + [0, 0, 4, 4, 0]])
            if boxes and rotated.iou_matrix(grown, np.array(boxes)).max() > 0:
                continue
            boxes.append(box)
            labels.append(kind)
        v, u = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
        for box, kind in zip(boxes, labels, strict=True):
            c, s = np.cos(box[4]), np.sin(box[4])
            x, y = (u - box[0]) * c + (v - box[1]) * s, (v - box[1]) * c - (u - box[0]) * s
            part = np.clip(box[2] / 2 - np.abs(x) + 0.5, 0, 1) * np.clip(box[3] / 2 - np.abs(y) + 0.5, 0, 1)
            ends = np.where((x < 0)[..., None], COLORS[KINDS[kind][2]], COLORS[KINDS[kind][3]])
            color = np.where((np.abs(x) > box[2] / 5)[..., None], ends, 175) + rng.normal(0, 30, (side, side, 3))
            image = image * (1 - part[..., None]) + color * part[..., None]
        found = rotated.canonical(np.array(boxes))
        # As clicked: in an ellipse of a tenth of the sides.
        turn, reach = rng.uniform(0, 2 * np.pi, len(boxes)), np.sqrt(rng.uniform(0, 1, len(boxes))) * 0.1
        x, y = reach * np.cos(turn) * found[:, 2], reach * np.sin(turn) * found[:, 3]
        c, s = np.cos(found[:, 4]), np.sin(found[:, 4])
        points = found[:, :2] + np.stack((x * c - y * s, x * s + y * c), 1)
        return np.clip(image, 0, 255).astype(np.uint8), found, np.array(labels), points
