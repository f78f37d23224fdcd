# SPDX-License-Identifier: Apache-2.0
"""Splitting: no object lost, the same bytes after a kill, bad images counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from tile_toys import CLASSES, Memory, position, position_image, rows_of_boxes, truth_of

from detection.dota.config import SplitConfig
from detection.dota.sidecar import read_sidecar, tile_of_name
from detection.dota.split import split
from detection.dota.tiles import PADDING, window_pixels
from detection.dota.windows import Window
from vision3d.errors import DataError, UserError
from vision3d.geometry import rotated
from vision3d.types.images import BoxTruth, LabeledImage

HERE = Path(__file__).resolve()
CONFIG = SplitConfig(128, 40)
WHO = {"data": "toys"}


def scenes(count: int = 3, points: bool = True) -> tuple[list[LabeledImage], list[BoxTruth | None]]:
    items: list[LabeledImage] = []
    truths: list[BoxTruth | None] = []
    for i in range(count):
        width, height = 300 + 40 * i, 200 + 10 * i
        boxes, labels = rows_of_boxes(width, height, 24 + i, seed=i)
        boxes[:, 2:4] *= 0.5
        truth = truth_of(boxes, labels, (width, height), np.arange(len(boxes)) % 2)
        image = LabeledImage(f"s{i}__x", position_image(width, height), CLASSES, gsd_m=0.25)
        if points:
            image = replace(image, points=boxes[:, :2], labels=labels, ids=np.arange(len(boxes)))
        items.append(image)
        truths.append(truth)
    return items, truths


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def lines_of(path: Path) -> list[tuple[NDArray[np.float64], str, int]]:
    lines = [line.split() for line in path.read_text().splitlines()]
    found = [fields for fields in lines if len(fields) >= 9]
    return [(np.array(f[:8], float).reshape(4, 2), f[8], int(f[9])) for f in found]


def test_tiles_hold_their_part_of_the_image_and_every_object_is_in_one(tmp_path: Path) -> None:
    items, truths = scenes()
    outcome = split(Memory(items, truths), tmp_path / "out", CONFIG, WHO)
    out = tmp_path / "out"
    sidecar = read_sidecar(out)
    assert (outcome.images, outcome.tiles, outcome.outside, outcome.bad) == (3, len(sidecar.windows), 0, [])
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert sorted(p.name for p in out.iterdir()) == ["classes.txt", "images", "labelTxt", "tiles.json"]
    assert (out / "classes.txt").read_text().split() == list(CLASSES)
    assert sidecar.images == {item.name: (item.image.shape[1], item.image.shape[0]) for item in items}
    assert sidecar.facts["classes"] == list(CLASSES)
    written = 0
    held: dict[str, set[tuple[float, ...]]] = {item.name: set() for item in items}
    for name, (image, window, _) in sidecar.windows.items():
        pixels = cv2.imread(str(out / "images" / f"{name}.png"))[..., ::-1]
        assert pixels.shape == (128, 128, 3)
        assert position(pixels[0, 0]).tolist() == [window.x, window.y]
        assert position(pixels[-1, -1]).tolist() == [window.x + 127, window.y + 127]
        tile = sidecar.tile(name)
        assert tile == replace(tile_of_name(name), rate=1.0)  # type: ignore[type-var]
        assert tile is not None
        item = next(i for i, item in enumerate(items) if item.name == image)
        truth = truths[item]
        assert truth is not None
        for quad, word, flag in lines_of(out / "labelTxt" / f"{name}.txt"):
            there = quad + [window.x, window.y]
            row = int(np.abs(truth.quads - there).max((1, 2)).argmin())
            assert np.abs(truth.quads[row] - there).max() < 1e-9  # the whole outline, cut or not
            assert word == CLASSES[truth.labels[row]]
            whole = (quad > -0.5).all() and (quad < 127.5).all()
            assert flag == (truth.difficult[row] if whole else 2)
            held[image].add(tuple(truth.boxes[row]))
            written += 1
        assert (out / "labelTxt" / f"{name}.txt").read_text().startswith(f"imagesource:{image}\ngsd:0.25\n")
    assert written == outcome.objects
    assert {name: len(rows) for name, rows in held.items()} == {"s0__x": 24, "s1__x": 25, "s2__x": 26}


def test_scaled_tiles_and_several_rates(tmp_path: Path) -> None:
    items, truths = scenes(1)
    config = SplitConfig(128, 40, rates=(0.5, 1.0), resize=True, min_filled=0.4)
    split(Memory(items, truths), tmp_path / "out", config, WHO)
    sidecar = read_sidecar(tmp_path / "out")
    wide = [name for name, (_, window, _) in sidecar.windows.items() if window.size == 256]
    assert len(wide) == 2
    truth = truths[0]
    assert truth is not None
    for name in wide:
        assert cv2.imread(str(tmp_path / "out" / "images" / f"{name}.png")).shape == (128, 128, 3)
        text = (tmp_path / "out" / "labelTxt" / f"{name}.txt").read_text()
        assert "gsd:0.5\n" in text
        tile = sidecar.tile(name)
        assert tile is not None
        assert (tile.scale, tile.rate) == (0.5, 0.5)
        for quad, _, _ in lines_of(tmp_path / "out" / "labelTxt" / f"{name}.txt"):
            back = tile.to_image(rotated.from_corners(quad[None]))
            distance = np.abs(rotated.corners(truth.boxes).mean(1) - back[:, :2]).max(1)
            assert distance.min() < 1e-9


def test_small_images_are_padded(tmp_path: Path) -> None:
    image = np.full((20, 30, 3), 7, np.uint8)
    tile = window_pixels(image, Window(0, 0, 64))
    assert tile.shape == (64, 64, 3)
    assert (tile[:20, :30] == 7).all()
    assert (tile[20:] == PADDING).all()
    assert (tile[:, 30:] == PADDING).all()
    assert PADDING == (124, 116, 104)  # red first


def test_without_boxes_points_are_written_and_without_points_nothing(tmp_path: Path) -> None:
    items, _ = scenes(2)
    split(Memory(items, [None, None]), tmp_path / "out", CONFIG, WHO)
    sidecar = read_sidecar(tmp_path / "out")
    assert not (tmp_path / "out" / "labelTxt").exists()
    found: dict[str, set[tuple[float, ...]]] = {item.name: set() for item in items}
    for name, (image, window, _) in sidecar.windows.items():
        for line in (tmp_path / "out" / "points" / f"{name}.txt").read_text().splitlines():
            x, y, word = line.split()
            assert word in CLASSES
            found[image].add((round(float(x) + window.x, 9), round(float(y) + window.y, 9)))
    for item in items:
        assert item.points is not None
        assert found[item.name] == {(round(x, 9), round(y, 9)) for x, y in item.points.tolist()}
    _, truths = scenes(2)
    both = split(Memory(items, truths), tmp_path / "both", replace(CONFIG, points=True), WHO)
    assert both.objects > 0
    assert content(tmp_path / "both" / "points") == content(tmp_path / "out" / "points")
    bare, _ = scenes(1, points=False)
    split(Memory(bare, [None]), tmp_path / "bare", CONFIG, WHO)
    assert sorted(p.name for p in (tmp_path / "bare").iterdir()) == ["classes.txt", "images", "tiles.json"]


def test_objects_larger_than_a_window_are_kept_and_those_outside_counted(tmp_path: Path) -> None:
    boxes = np.array([[150.0, 100, 260, 20, 0.0], [-300.0, 0, 10, 5, 0.0]])
    truth = truth_of(boxes, [0, 1], (300, 200))
    item = LabeledImage("a", position_image(300, 200), CLASSES)
    outcome = split(Memory([item], [truth]), tmp_path / "out", CONFIG, WHO)
    assert (outcome.objects, outcome.forced, outcome.outside) == (1, 1, 1)
    labels = [line for p in (tmp_path / "out" / "labelTxt").iterdir() for line in lines_of(p)]
    assert [flag for _, _, flag in labels] == [2]


def test_a_finished_split_is_left_as_it_is_and_another_one_refused(tmp_path: Path) -> None:
    items, truths = scenes(1)
    out = tmp_path / "out"
    first = split(Memory(items, truths), out, CONFIG, WHO)
    before = content(out)
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    again = split(Memory(items, truths), out, CONFIG, WHO)
    assert (again, content(out)) == (first, before)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == times
    for config, who in ((replace(CONFIG, gap=20), WHO), (CONFIG, {"data": "others"})):
        with pytest.raises(UserError, match="exists already and is not an empty folder"):
            split(Memory(items, truths), out, config, who)
    empty = tmp_path / "empty"
    empty.mkdir()
    split(Memory(items, truths), empty, CONFIG, WHO)
    assert content(empty) == before


def test_bad_images_end_the_split_or_are_counted(tmp_path: Path) -> None:
    items, truths = scenes(3)
    reader = Memory(items, truths, {1: "s1.txt: line 4: unknown class 'foo'"})
    with pytest.raises(UserError, match="unknown class 'foo'; --skip-bad leaves such images out"):
        split(reader, tmp_path / "out", CONFIG, WHO)
    assert not (tmp_path / "out").exists()
    outcome = split(reader, tmp_path / "out", CONFIG, WHO, skip_bad=True)
    assert (outcome.images, outcome.resumed) == (2, 1)
    assert outcome.bad == [{"name": "s1__x", "reason": "s1.txt: line 4: unknown class 'foo'"}]
    assert split(reader, tmp_path / "out", CONFIG, WHO, skip_bad=True).bad == outcome.bad
    with pytest.raises(UserError, match="none of the 1 images"):
        split(Memory(items[:1], truths[:1], {0: "bad"}), tmp_path / "none", CONFIG, WHO, skip_bad=True)
    assert not list(tmp_path.glob("*none*"))


def test_names_that_would_collide_and_classes_with_spaces_are_refused(tmp_path: Path) -> None:
    items, truths = scenes(2)
    names = [replace(items[0], name="a/b"), replace(items[1], name="a_b")]
    with pytest.raises(DataError, match="names of those of 'a/b'"):
        split(Memory(names, truths), tmp_path / "out", CONFIG, WHO)
    alike = [replace(items[0], classes=("plane", "tall ship", "tall-ship"))]
    with pytest.raises(DataError, match="cannot be told apart"):
        split(Memory(alike, truths), tmp_path / "out", CONFIG, WHO)
    spaced = [replace(items[0], classes=("plane", "tall ship", "x"))]
    split(Memory(spaced, truths), tmp_path / "spaced", CONFIG, WHO)
    assert (tmp_path / "spaced" / "classes.txt").read_text() == "plane\ntall-ship\nx\n"
    assert any(" tall-ship " in p.read_text() for p in (tmp_path / "spaced" / "labelTxt").iterdir())
    split(Memory([replace(items[0], name="a/b")], truths), tmp_path / "nested", CONFIG, WHO)
    sidecar = read_sidecar(tmp_path / "nested")
    assert list(sidecar.images) == ["a/b"]  # merging gives results their own names again
    assert all(name.startswith("a_b__128__") for name in sidecar.windows)


class Stopped(Exception):
    """A stand-in for whatever ends a process."""


@pytest.mark.parametrize("stop_at", [0, 1, 2])
def test_a_split_that_was_stopped_goes_on_to_the_same_bytes(tmp_path: Path, stop_at: int) -> None:
    items, truths = scenes(3)
    split(Memory(items, truths), tmp_path / "whole", CONFIG, WHO)

    class Stopping(Memory):
        def __getitem__(self, index: int) -> LabeledImage:
            if index == stop_at:
                raise Stopped
            return super().__getitem__(index)

    with pytest.raises(Stopped):
        split(Stopping(items, truths), tmp_path / "out", CONFIG, WHO)
    assert not (tmp_path / "out").exists()
    asked: list[int] = []

    class Counting(Memory):
        def __getitem__(self, index: int) -> LabeledImage:
            asked.append(index)
            return super().__getitem__(index)

    with pytest.raises(UserError, match="an unfinished split of other data or options"):
        split(Counting(items, truths), tmp_path / "out", replace(CONFIG, gap=8), WHO)
    outcome = split(Counting(items, truths), tmp_path / "out", CONFIG, WHO)
    assert (asked, outcome.resumed) == (list(range(stop_at, 3)), stop_at)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_kill_just_before_the_end_is_mended(tmp_path: Path) -> None:
    items, truths = scenes(2, points=False)
    split(Memory(items, truths), tmp_path / "whole", CONFIG, WHO)
    (tmp_path / "whole").rename(tmp_path / ".out.split")  # all written, not yet renamed
    reference = content(tmp_path / ".out.split")
    split(Memory(items, truths), tmp_path / "out", CONFIG, WHO)
    assert content(tmp_path / "out") == reference
    assert not (tmp_path / "out" / "points").exists()


SLOW = """
import sys, time
from pathlib import Path
from test_tiles_split import CONFIG, WHO, scenes
from tile_toys import Memory
from detection.dota.split import split

class Slow(Memory):
    def __getitem__(self, index):
        time.sleep(float(sys.argv[2]))
        return super().__getitem__(index)

split(Slow(*scenes(12)), Path(sys.argv[1]), CONFIG, WHO)
"""


def start(out: Path, pause_s: float) -> subprocess.Popen[bytes]:
    path = f"{HERE.parent}:{HERE.parents[2]}"
    command = [sys.executable, "-c", SLOW, str(out), str(pause_s)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})


def test_a_killed_split_leaves_no_folder_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    out, temp = tmp_path / "out", tmp_path / ".out.split"
    process = start(out, 0.1)
    end_s = time.monotonic() + 60
    while len(list((temp / ".done").glob("*.json"))) < 4:
        assert process.poll() is None
        assert time.monotonic() < end_s
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert not out.exists()
    (temp / "images" / ".half.123.tmp").write_bytes(b"cut short")  # as a kill may leave it
    items, truths = scenes(12)
    outcome = split(Memory(items, truths), out, CONFIG, WHO)
    assert 4 <= outcome.resumed < 12
    split(Memory(items, truths), tmp_path / "whole", CONFIG, WHO)
    assert content(out) == content(tmp_path / "whole")
    assert not temp.exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    items, truths = scenes(1)
    with pytest.raises(UserError, match="cannot be made"):
        split(Memory(items, truths), tmp_path / "file" / "out", CONFIG, WHO)


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[Any] = []

    def track(indices: Any, total: int, label: str) -> Any:
        told.append((total, label))
        return indices

    split(Memory(*scenes(2)), tmp_path / "out", CONFIG, WHO, track=track, threads=1)
    assert told == [(2, "splitting")]
