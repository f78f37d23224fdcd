# SPDX-License-Identifier: Apache-2.0
"""Readers of oriented boxes on real files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision3d.contracts import DataConfig
from vision3d.errors import DataError
from vision3d.geometry import rotated
from vision3d.readers.dior import SPEC as DIOR
from vision3d.readers.dota import SPEC as DOTA
from vision3d.readers.hrsc import SPEC as HRSC
from vision3d.readers.yolo_obb import SPEC as YOLO


def test_whole_dota_images(shared_data: Path) -> None:
    source = str(shared_data / "dota_full")
    assert DOTA.check(source) == []
    assert DOTA.match(source) == 0.9
    reader = DOTA.open(source, DataConfig())
    assert [reader.key(i) for i in range(4)] == ["P0003", "P0005", "P0706", "P1888"]
    counts = [len(reader.truth(i).boxes) for i in range(4)]
    assert counts == [55, 130, 536, 64]
    assert [int((reader.truth(i).difficult > 0).sum()) for i in range(4)] == [13, 21, 6, 0]
    sample, truth = reader[2], reader.truth(2)
    assert sample.image.shape == (1182, 1111, 3)
    assert sample.gsd_m == pytest.approx(0.255589285596)
    # P0706, first line: 1054 1028 1063 1011 1111 1040 1112 1062 ship 1
    np.testing.assert_array_equal(truth.quads[0].ravel(), [1054, 1028, 1063, 1011, 1111, 1040, 1112, 1062])
    assert (truth.classes[truth.labels[0]], truth.difficult[0]) == ("ship", 1)
    for index in range(4):
        sample, truth = reader[index], reader.truth(index)
        corners = rotated.corners(truth.boxes)
        # The rectangle holds its quadrilateral, and is hardly larger.
        for box, quad in zip(truth.boxes, truth.quads):
            grown = box + [0, 0, 1e-6, 1e-6, 0]
            assert rotated.points_in_boxes(quad, grown[None]).all()
        x, y = truth.quads[..., 0], truth.quads[..., 1]
        area = 0.5 * np.abs((x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(1))
        assert np.median(area / (truth.boxes[:, 2] * truth.boxes[:, 3])) > 0.93
        assert corners.shape == (counts[index], 4, 2)
        assert rotated.points_in_boxes(sample.points, truth.boxes).diagonal().all()
        offset = np.linalg.norm(sample.points - truth.boxes[:, :2], axis=1)
        assert (offset <= 0.1 * truth.boxes[:, 2] + 1e-9).mean() > 0.98  # all but those cut by the border


def test_dota_1_5_labels_lie_beside_those_of_1_0(shared_data: Path) -> None:
    reader = DOTA.open(f"{shared_data / 'dota_full'}?version=1.5", DataConfig(skip_bad=True))
    assert len(reader.classes) == 16
    assert sorted(reader.bad) == [1, 2, 3]  # this copy has one file of v1.5
    assert len(reader.truth(0).boxes) == 55


def test_tiles_without_difficulty(shared_data: Path) -> None:
    source = str(shared_data / "dota_half")
    assert DOTA.check(source) == []
    reader = DOTA.open(source, DataConfig())
    assert [(reader.key(i), len(reader.truth(i).boxes)) for i in range(2)] == [
        ("P0770__0.5__0___0", 22),
        ("P1088__0.5__0___0", 34),
    ]
    assert reader.truth(0).difficult.max() == 0
    assert reader[1].gsd_m is None


def test_dota8_from_folder_and_from_yaml(shared_data: Path) -> None:
    for source in (shared_data / "dota8", shared_data / "dota8" / "dota8.yaml"):
        assert YOLO.match(str(source)) == 0.8
        assert YOLO.check(str(source)) == []
        reader = YOLO.open(str(source), DataConfig())
        assert [len(reader.truth(i).boxes) for i in range(len(reader))] == [110, 13, 1, 1]
        assert reader.classes[9] == "large vehicle"
    assert len(YOLO.open(str(source), DataConfig(split="train"))) == 4


def test_files_for_trying_out_mmrotate_are_told_to_be_wrong(shared_data: Path) -> None:
    """Their labels belong to larger images than the ones beside them."""
    folder = shared_data / "dota_dior_mmrotate"
    problems = DOTA.check(str(folder / "mmrotate_0x"))
    assert [problem.rpartition("labelTxt/")[2] for problem in problems] == [
        "P0004__1__0___0.txt: line 1: lies outside of the image, which is 285x294 pixels",
        "P0004__1__0___0.txt: line 2: lies outside of the image, which is 285x294 pixels",
        "P0004__1__0___0.txt: line 3: lies outside of the image, which is 285x294 pixels",
        "P0004__1__0___0.txt: line 4: its edges cross one another: are the corners in order?",
        "P0004__1__0___1024.txt: has no image",
    ]
    with pytest.raises(DataError, match=r"line 1: lies outside of the image, which is 170x170 pixels \(and 3 more"):
        DOTA.open(str(folder / "dota"), DataConfig())


def test_a_file_of_dior(shared_data: Path) -> None:
    source = str(shared_data / "dota_dior_mmrotate" / "dior")
    assert DIOR.match(source) == 0.9
    assert DIOR.check(source) == []
    reader = DIOR.open(source, DataConfig())
    truth = reader.truth(0)
    np.testing.assert_allclose(truth.boxes, [[408.5, 454.5, 551, 435, 0]])
    assert truth.classes[truth.labels[0]] == "golffield"
    assert reader[0].image.shape == (800, 800, 3)


def test_a_file_of_hrsc(shared_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "HRSC2016" / "FullDataSet"
    shutil.copytree(shared_data / "dota_dior_mmrotate" / "hrsc" / "FullDataSet", folder)
    (folder / "AllImages").mkdir()
    with pytest.raises(DataError, match=r"100000006\.xml: there is no image 100000006"):
        HRSC.open(str(folder), DataConfig())
    Image.new("RGB", (1172, 816)).save(folder / "AllImages" / "100000006.bmp")  # that one is not in the copy
    reader = HRSC.open(str(tmp_path / "HRSC2016"), DataConfig())
    assert (reader.name, reader.classes, reader[0].gsd_m) == ("HRSC2016", ("ship",), 1.07)
    truth = reader.truth(0)
    np.testing.assert_allclose(truth.boxes, [[341.2143, 443.3325, 778.4297, 178.2595, -1.122944]], atol=1e-9)
    # The bow is marked at (143, 776), down and left of the centre.
    np.testing.assert_allclose(truth.heading, np.pi - 1.122944)
    hull = rotated.hulls(truth.boxes)[0]
    # The file's own upright box, to the annotator's precision.
    np.testing.assert_allclose(hull, [119, 75, 587, 789], atol=60)
