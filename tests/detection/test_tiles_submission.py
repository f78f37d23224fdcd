# SPDX-License-Identifier: Apache-2.0
"""Submissions of DOTA: the server's layout, every digit, the same bytes, and back."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detection.dota.results_files import read_results
from detection.dota.submission import number_text, score_text, submission_texts, write_submission
from detection.problem import Detections
from vision3d.errors import DataError
from vision3d.geometry import rotated

CLASSES = ("ship", "plane", "small-vehicle")


def results(count: int = 40) -> dict[str, Detections]:
    rng = np.random.default_rng(0)
    found = {}
    for i in range(4):
        n = count + i if i != 2 else 0
        boxes = np.column_stack(
            [rng.uniform(-20, 4000, (n, 2)), rng.uniform(2, 300, (n, 2)), rng.uniform(-1.5, 1.5, n)]
        )
        labels = rng.integers(0, 2, n)  # no small-vehicle at all
        found[f"P{i:04d}"] = Detections(rotated.canonical(boxes), rng.random(n), labels)
    return found


def test_every_class_has_a_file_with_the_servers_lines(tmp_path: Path) -> None:
    one = {"P0001": Detections(np.array([[10.0, 20, 4, 2, 0]]), np.array([0.5]), np.array([1]))}
    path = write_submission(tmp_path / "new" / "Task1.zip", one, CLASSES)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["Task1_ship.txt", "Task1_plane.txt", "Task1_small-vehicle.txt"]
        assert archive.read("Task1_ship.txt") == b""
        line = archive.read("Task1_plane.txt").decode()
    assert line == "P0001 0.500000 8.0 19.0 12.0 19.0 12.0 21.0 8.0 21.0\n"
    folder = write_submission(tmp_path / "task2", one, CLASSES, "task2")
    assert sorted(p.name for p in folder.iterdir()) == [f"Task2_{name}.txt" for name in sorted(CLASSES)]
    assert (folder / "Task2_plane.txt").read_text() == "P0001 0.500000 8.0 19.0 12.0 21.0\n"


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        write_submission(tmp_path / name, results(), CLASSES)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "b.zip"]


@pytest.mark.parametrize("name", ["Task1.zip", "folder"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    wanted = results()
    path = write_submission(tmp_path / name, wanted, CLASSES)
    found, classes = read_results(path, CLASSES)
    assert classes == CLASSES
    assert list(found) == ["P0000", "P0001", "P0003"]  # an image without detections leaves no line
    for image, there in found.items():
        order = np.lexsort((-wanted[image].scores, wanted[image].labels))
        assert (there.scores == wanted[image].scores[order]).all()  # every digit
        assert (there.labels == wanted[image].labels[order]).all()
        assert rotated.iou_pairs(there.boxes, wanted[image].boxes[order]).min() > 1 - 1e-9
        assert np.abs(there.boxes - wanted[image].boxes[order])[:, :4].max() < 1e-9


@given(st.floats(0, 1))
def test_scores_keep_every_digit(score: float) -> None:
    text = score_text(score)
    assert float(text) == score
    assert "e" not in text
    assert len(text.partition(".")[2]) >= 6


def test_numbers_have_no_exponent() -> None:
    for value in (1e-7, 123456789012345680.0, -2.5e-300, 0.1 + 0.2, 5.0, 0.0):
        assert float(number_text(value)) == value
        assert "e" not in number_text(value)


def test_names_that_cannot_stand_there_are_refused() -> None:
    some = results(1)["P0000"]
    with pytest.raises(DataError, match="the name of an image must be one word"):
        submission_texts({"two words": some}, CLASSES)
    with pytest.raises(DataError, match="cannot name the file of a class"):
        submission_texts({"a": some}, ["../ship", "plane"])
    with pytest.raises(ValueError, match="none of the 1 classes"):
        submission_texts({"a": Detections(some.boxes, some.scores, some.labels + 1)}, ["ship"])
    bad = Detections(np.array([[np.nan, 0, 1, 1, 0]]), np.ones(1), np.zeros(1, np.int64))
    with pytest.raises(ValueError, match="not finite"):
        submission_texts({"a": bad}, CLASSES)


def test_nothing_is_left_of_a_submission_that_fails(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        write_submission(tmp_path / "t.zip", {"two words": Detections.none()}, CLASSES)
    assert not list(tmp_path.iterdir())
