# SPDX-License-Identifier: Apache-2.0
"""Tiled detection finds what is in the whole image, once, in the right place."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from tile_toys import CLASSES, KnowingDetector, matched, position_image, rows_of_boxes

from detection.dota.config import VIEWS, TileConfig
from detection.dota.inference import resized, seen, tiled_detect, unseen
from detection.dota.merge import concatenated, merge_tiles, merged, seen_better_elsewhere
from detection.dota.sidecar import Tile, tile_of_name
from detection.dota.windows import Window
from detection.problem import Detections
from vision3d.geometry import rotated

HERE = Path(__file__).resolve()


def found_in(boxes: NDArray[np.float64], labels: list[int], scores: list[float]) -> Detections:
    return Detections(np.array(boxes, np.float64).reshape(-1, 5), np.array(scores), np.array(labels, np.int64))


def test_every_object_is_found_once_and_in_its_place() -> None:
    boxes, labels = rows_of_boxes(900, 700, 120)
    detector = KnowingDetector(boxes, labels)
    found = tiled_detect(detector, position_image(900, 700), TileConfig(256, 80, batch=3))
    assert len(found) == 120
    assert matched(found.boxes, boxes).max() < 1e-9
    assert sorted(found.labels.tolist()) == sorted(labels.tolist())
    assert (np.diff(found.scores) <= 0).all()
    assert max(detector.batches) == 3
    assert set(detector.shapes) == {(256, 256, 3)}


def test_an_image_that_fits_goes_in_whole() -> None:
    boxes, labels = rows_of_boxes(200, 150, 12)
    detector = KnowingDetector(boxes, labels)
    found = tiled_detect(detector, position_image(200, 150), TileConfig(256, 80))
    assert detector.shapes == [(150, 200, 3)]
    assert matched(found.boxes, boxes).max() < 1e-9
    close = np.array([[20.0, 20, 20, 10, 0], [22, 23, 20, 10, 0]])  # neighbours that merging would make one
    found = tiled_detect(KnowingDetector(close, labels[:2] * 0), position_image(200, 150), TileConfig(256, 80))
    assert len(found) == 2
    tall = KnowingDetector(boxes, labels)
    tiled_detect(tall, position_image(100, 400), TileConfig(256, 80))
    assert set(tall.shapes) == {(256, 100, 3)}  # never padded here: that is the network's business


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_turned_back_exactly(view: str) -> None:
    boxes, labels = rows_of_boxes(300, 200, 24)
    boxes[:, 4] += np.linspace(-0.2, 0.2, 24)
    boxes = rotated.canonical(boxes)
    image = position_image(300, 200)
    whole = KnowingDetector(boxes, labels).detect([image])[0]
    shown = seen(image, view)  # type: ignore[arg-type]
    found = KnowingDetector(boxes, labels).detect([shown])[0]
    back = unseen(found.boxes, view, (shown.shape[1], shown.shape[0]))  # type: ignore[arg-type]
    assert rotated.iou_pairs(back, whole.boxes).min() > 1 - 1e-9
    assert np.abs(rotated.angle_distance(back[:, 4], whole.boxes[:, 4])).max() < 1e-9


def test_views_turn_the_way_their_names_say() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 0] = 9  # top left
    corner = {view: tuple(int(i) for i in np.argwhere(seen(image, view)[..., 0] == 9)[0]) for view in VIEWS}
    assert corner == {
        "plain": (0, 0),
        "flip-x": (0, 2),
        "flip-y": (1, 0),
        "turn-90": (0, 1),  # clockwise: to the top right of an image two wide
        "turn-180": (1, 2),
        "turn-270": (2, 0),
    }


def test_all_views_together_find_every_object_once() -> None:
    boxes, labels = rows_of_boxes(500, 400, 60)
    detector = KnowingDetector(boxes, labels)
    found = tiled_detect(detector, position_image(500, 400), TileConfig(256, 80, batch=4, views=VIEWS))
    assert len(found) == 60
    assert matched(found.boxes, boxes).max() < 1e-8
    assert sum(detector.batches) == 6 * 6
    assert detector.batches == [4] * 9


class BlobDetector:
    """The bright areas of an image and their second moments."""

    classes = ("blob",)

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        self.shapes += [image.shape for image in images]
        return [self._detect(image[..., 0]) for image in images]

    def _detect(self, image: NDArray[np.uint8]) -> Detections:
        boxes = []
        count, areas = cv2.connectedComponents((image > 20).astype(np.uint8))
        for area in range(1, count):
            rows, columns = np.nonzero(areas == area)
            at_border = min(rows) == 0 or min(columns) == 0
            if at_border or max(rows) == image.shape[0] - 1 or max(columns) == image.shape[1] - 1:
                continue  # cut
            weights = image[rows, columns].astype(float)
            points = np.stack([columns, rows], 1).astype(float)
            centre = np.average(points, 0, weights)
            values, vectors = np.linalg.eigh(np.cov((points - centre).T, aweights=weights))
            short, long = np.sqrt(12 * values)
            boxes.append([*centre, long, short, np.arctan2(vectors[1, 1], vectors[0, 1])])
        found = rotated.canonical(np.array(boxes).reshape(-1, 5))
        return Detections(found, np.full(len(found), 0.5), np.zeros(len(found), np.int64))


@pytest.mark.parametrize(("rates", "size"), [((0.5,), (700, 500)), ((1.5,), (700, 500)), ((0.5, 1.0, 1.5), (200, 150))])
def test_windows_of_other_rates_come_back_to_the_image(rates: tuple[float, ...], size: tuple[int, int]) -> None:
    wanted = [[60.25, 70.5, 60, 24, 0.4], [130.0, 60.0, 40, 20, -0.9]]
    wanted += [] if size[0] < 400 else [[400.5, 300.75, 80, 30, 1.2], [600.0, 440.0, 50, 30, 0.0]]
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for corners in rotated.corners(np.array(wanted)):
        cv2.fillPoly(image, [np.round(corners * 256).astype(np.int32)], (255, 255, 255), cv2.LINE_AA, shift=8)
    detector = BlobDetector()
    found = tiled_detect(detector, image, TileConfig(256, 100, rates))
    assert len(found) == len(wanted)
    order = [int(np.hypot(*(found.boxes[:, :2] - box[:2]).T).argmin()) for box in wanted]
    # The blob's own moments at rate 1 are off by as much: corners are drawn in pixels.
    assert np.abs(found.boxes[order, :2] - np.array(wanted)[:, :2]).max() < 0.2
    assert rotated.iou_pairs(found.boxes[order], np.array(wanted)).min() > 0.88
    limit = 256 if size[0] > 256 else round(max(size) * max(rates))
    assert max(max(shape) for shape in detector.shapes) <= limit


def test_resizing_keeps_to_its_scale() -> None:
    image = np.zeros((10, 33, 3), np.uint8)
    assert resized(image, 1.0) is image
    assert resized(image, 0.5).shape in ((5, 16, 3), (5, 17, 3))
    assert resized(image[:1], 0.25).shape == (1, 8, 3)
    assert resized(image, 1024 / 683).shape == (15, 49, 3)


def test_a_box_in_the_margin_goes_where_another_window_holds_it() -> None:
    left, right = Window(0, 0, 100), Window(60, 0, 100)
    found = found_in(
        [[95, 50, 20, 6, 0], [95, 50, 5, 3, 0], [5, 50, 20, 6, 0], [95, 97, 20, 20, 0], [70, 50, 70, 5, 0]],
        [0] * 5,
        [1] * 5,
    )
    gone = seen_better_elsewhere(found, left, [right], 10, (160, 100))
    # The third is near the image's own border only, the fourth leaves the image at the bottom but nothing else, and the
    # centre of the last is far from the border.
    assert gone.tolist() == [True, True, False, True, False]
    assert not seen_better_elsewhere(found, left, [], 10, (160, 100)).any()
    assert not seen_better_elsewhere(found, left, [Window(90, 0, 100)], 10, (190, 100)).any()  # no further inside there
    cut_there = seen_better_elsewhere(found, left, [Window(87, 0, 100)], 5, (190, 100))
    assert cut_there.tolist() == [False, True, False, False, False]


def test_the_margin_rule_loses_nothing() -> None:
    boxes, labels = rows_of_boxes(900, 700, 120)

    class Shrinking(KnowingDetector):
        """A box that is cut comes out too small and too sure: what the margin rule is for."""

        def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
            out = []
            for there in super().detect(images):
                boxes = there.boxes.copy()
                cut = there.scores < 0.899
                boxes[cut, 2] *= 0.5
                out.append(Detections(boxes, np.where(cut, 0.95, 0.9), there.labels))
            return out

    image = position_image(900, 700)
    plain = tiled_detect(Shrinking(boxes, labels), image, TileConfig(256, 80))
    assert matched(plain.boxes, boxes).max() > 1
    found = tiled_detect(Shrinking(boxes, labels), image, TileConfig(256, 80, margin=40))
    within = (rotated.hulls(boxes) > 0).all(1) & (rotated.hulls(boxes)[:, 2:] < [899, 699]).all(1)
    assert len(found) == 120
    assert matched(found.boxes, boxes[within]).max() < 1e-9


def test_merging_is_within_classes_and_true_rotated() -> None:
    crossed = [[50, 50, 40, 6, 0.78], [50, 50, 40, 6, -0.78], [50, 50, 40, 6, 0.78]]
    a = found_in(crossed[:2], [0, 0], [0.9, 0.8])
    b = found_in(crossed[2:], [1], [0.7])
    assert len(merged([a, b], 0.3)) == 3  # hulls are the same: a merge by hulls would leave one of each class
    c = found_in([[51, 50, 40, 6, 0.78]], [0], [0.95])
    found = merged([a, c], 0.3)
    assert found.scores.tolist() == [0.95, 0.8]
    assert len(merged([], 0.1)) == 0
    assert merged([a, Detections.none()], 0.3).scores.tolist() == [0.9, 0.8]


def test_ids_survive_where_all_parts_have_them() -> None:
    a = Detections(np.array([[5.0, 5, 2, 1, 0]]), np.ones(1), np.zeros(1, np.int64), np.array([7]))
    assert concatenated([a, a]).ids is not None
    assert concatenated([a, found_in([[1, 1, 1, 1, 0]], [0], [1])]).ids is None


def test_tiles_are_merged_by_their_names() -> None:
    one = found_in([[900, 10, 40, 10, 0.2]], [1], [0.9])
    same = found_in([[76, 10, 40, 10, 0.2]], [1], [0.8])
    half = found_in([[50, 5, 20, 5, 0.0]], [1], [0.7])
    found = merge_tiles(
        [("P1__1024__0___0", one), ("P1__1024__824___0", same), ("P2", half), ("P3__0.5__0___100", half)],
        tile_of_name,
        0.1,
    )
    assert list(found) == ["P1", "P2", "P3"]
    assert found["P1"].boxes.tolist() == one.boxes.tolist()
    assert found["P2"].boxes.tolist() == half.boxes.tolist()
    assert found["P3"].boxes.tolist() == [[100, 210, 40, 10, 0]]
    scaled = merge_tiles([("t", half)], {"t": Tile.of("P", Window(10, 20, 200, 0.5), 0.5)}.get, 0.1)["P"]
    assert scaled.boxes.tolist() == [[110.5, 30.5, 40, 10, 0]]


def test_images_of_other_shapes_are_refused() -> None:
    detector = KnowingDetector(np.zeros((0, 5)), np.zeros(0, np.int64))
    for image in (np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.float32), np.zeros((0, 9, 3), np.uint8)):
        with pytest.raises(ValueError, match="not \\(H, W, 3\\) uint8"):
            tiled_detect(detector, image, TileConfig())  # type: ignore[arg-type]


BIG = """
import json, resource, sys
import numpy as np
from tile_toys import KnowingDetector, matched, position_image, rows_of_boxes
from detection.dota.config import TileConfig
from detection.dota.inference import tiled_detect

boxes, labels = rows_of_boxes(4000, 4000, 2000)
detector = KnowingDetector(boxes, labels)
found = tiled_detect(detector, position_image(4000, 4000), TileConfig())
off = matched(found.boxes, boxes)
peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"found": len(found), "off": float(off.max()), "peak_mb": peak_mb, "windows": sum(detector.batches)}))
"""


def test_a_large_image_with_2000_objects_loses_and_doubles_none_in_less_than_2_gb() -> None:
    command = [sys.executable, "-c", BIG]
    path = f"{HERE.parent}:{HERE.parents[2]}"
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": path})
    found = json.loads(answer.stdout)
    assert found["found"] == 2000
    assert found["off"] < 1e-9
    assert found["windows"] == 25
    assert found["peak_mb"] < 2000


def test_classes_of_the_toys() -> None:
    assert KnowingDetector.classes == CLASSES


def test_rows_of_a_tile_are_no_rows_of_its_image() -> None:
    """Ids count a tile's own objects: those of several tiles would claim the same object of the image."""
    boxes = np.array([[50.0, 50, 20, 10, 0]])
    with_ids = Detections(boxes, np.ones(1), np.zeros(1, np.int64), np.zeros(1, np.int64))
    found = merge_tiles([("P1__1024__0___0", with_ids), ("P2", with_ids)], tile_of_name, 0.1)
    assert found["P1"].ids is None
    assert found["P2"].ids is not None
