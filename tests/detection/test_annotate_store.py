# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import threading

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.annotate import store as store_module
from detection.annotate.images import ImageSet
from detection.annotate.store import Conflict, PointStore
from vision3d.errors import DataError

SIZE = (200, 100)


@pytest.fixture
def store(tmp_path):
    return PointStore(tmp_path / "town", ["plane", "small vehicle"])


def test_points_come_back_as_they_were(store):
    assert store.load("a") == ([], "")
    points = [(10.0, 20.5, 0), (-0.5, 99.49, 1), (199.5, -0.5, 1)]
    version = store.save("a", points, "", SIZE)
    assert store.load("a") == (points, version)
    assert store.path("a").read_text() == "10.00 20.50 plane\n-0.50 99.49 small vehicle\n199.50 -0.50 small vehicle\n"
    assert (store.folder / "classes.txt").read_text() == "plane\nsmall vehicle\n"


@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(-0.5, 199.5), st.floats(-0.5, 99.5), st.integers(0, 1)), max_size=20))
def test_any_points_inside_come_back_within_half_a_hundredth(tmp_path_factory, points):
    store = PointStore(tmp_path_factory.mktemp("any"), ["a", "b"])
    store.save("x", points, "", SIZE)
    found, version = store.load("x")
    assert [p[2] for p in found] == [p[2] for p in points]
    for one, other in zip(found, points, strict=True):
        assert abs(one[0] - other[0]) <= 0.005 + 1e-12
        assert abs(one[1] - other[1]) <= 0.005 + 1e-12
    assert store.save("x", found, version, SIZE) == version


def test_nothing_is_written_before_the_first_point(store):
    assert store.counts(["a"]) == [None]
    assert not store.folder.exists()


def test_an_image_without_objects_is_not_one_that_nobody_looked_at(store):
    store.save("empty", [], "", SIZE)
    assert store.path("empty").read_bytes() == b""
    assert store.counts(["empty", "other"]) == [0, None]


def test_a_file_that_somebody_else_changed_is_not_overwritten(store):
    first = store.save("a", [(1, 1, 0)], "", SIZE)
    store.path("a").write_text("2 2 plane\n")
    for version in ("", first):
        with pytest.raises(Conflict):
            store.save("a", [(3, 3, 0)], version, SIZE)
    points, version = store.load("a")
    assert points == [(2, 2, 0)]
    store.path("a").unlink()
    with pytest.raises(Conflict):
        store.save("a", points, version, SIZE)


def test_of_many_writers_at_once_exactly_one_wins(store):
    outcomes = []

    def write(label):
        try:
            outcomes.append(store.save("a", [(label, 0, 0)], "", SIZE))
        except Conflict:
            outcomes.append(None)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (won,) = [outcome for outcome in outcomes if outcome]
    assert store.load("a")[1] == won


@pytest.mark.parametrize(
    "point",
    [(-0.51, 0, 0), (199.51, 0, 0), (0, 99.6, 0), (float("nan"), 0, 0), (0, float("inf"), 0), (0, 0, 2), (0, 0, -1)],
)
def test_what_is_wrong_leaves_the_file_as_it_is(store, point):
    version = store.save("a", [(1, 1, 0)], "", SIZE)
    with pytest.raises(ValueError, match=r"outside|class"):
        store.save("a", [(2, 2, 0), point], version, SIZE)
    assert store.load("a") == ([(1, 1, 0)], version)


def test_a_full_disk_leaves_the_old_file(store, monkeypatch):
    version = store.save("a", [(1, 1, 0)], "", SIZE)

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"a\.txt: cannot be written: No space left"):
        store.save("a", [], version, SIZE)
    assert store.load("a")[0] == [(1, 1, 0)]
    assert [p.name for p in store.path("a").parent.iterdir()] == ["a.txt"]


def test_more_points_than_anybody_clicks_are_refused(store, monkeypatch):
    monkeypatch.setattr(store_module, "MOST_POINTS", 2)
    with pytest.raises(ValueError, match="more than 2 points"):
        store.save("a", [(0, 0, 0)] * 3, "", SIZE)
    assert not store.path("a").exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"1 2 plane\n3 x plane\n", "line 2: is not 'x y class'"),
        (b"\n1 2\n", "line 2: is not 'x y class'"),
        (b"nan 2 plane\n", "line 1: is not 'x y class'"),
        (b"1 2 tree\n", "line 1: unknown class 'tree'; known are plane, small vehicle (see --classes)"),
        (b"1 2 pl\xffane\n", "holds bytes that are not UTF-8"),
    ],
)
def test_damaged_files_are_told_with_their_line(store, data, words):
    store.path("a").parent.mkdir(parents=True)
    store.path("a").write_bytes(data)
    with pytest.raises(DataError) as error:
        store.counts(["a"])
    assert str(error.value) == f"{store.path('a')}: {words}"


def test_foreign_line_ends_and_marks_are_read(store):
    store.path("a").parent.mkdir(parents=True)
    store.path("a").write_bytes(b"\xef\xbb\xbf1 2 plane\r\n\r\n3 4 small vehicle\r\n")
    assert store.load("a")[0] == [(1, 2, 0), (3, 4, 1)]


@pytest.mark.parametrize("classes", [[], ["a", "a"], [""], ["a\nb"], [" a"], ["a  b"]])
def test_classes_must_fit_a_line_each(tmp_path, classes):
    with pytest.raises(DataError):
        PointStore(tmp_path, classes)


def test_the_reader_of_points_reads_what_is_written(tmp_path):
    readers = pytest.importorskip("vision3d.readers.points")
    from vision3d.contracts import DataConfig

    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), rng.integers(0, 256, (100, 200, 3), dtype=np.uint8))
    store = PointStore(tmp_path, ["plane", "small vehicle"])
    points = [(10.25, 20.5, 1), (199.5, -0.5, 0)]
    store.save("a", points, "", SIZE)
    store.save("b", [], "", SIZE)
    reader = readers.SPEC.open(str(tmp_path), DataConfig(skip_bad=True))
    assert list(reader.bad) == [2]
    assert reader.classes == store.classes
    sample = reader[0]
    assert [(x, y, int(c)) for (x, y), c in zip(sample.points, sample.labels, strict=True)] == points
    assert reader[1].points.shape == (0, 2)


def test_tiles_are_parts_of_the_image():
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8), (900, 600), interpolation=cv2.INTER_CUBIC)
    images = ImageSet(["a"], lambda index: smooth)
    assert images.size(0) == (900, 600)
    data = images.tile(0, 700, 500, 256, 256)
    tile = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert tile.shape == (100, 200, 3)
    assert np.abs(tile.astype(int) - smooth[500:600, 700:900]).mean() < 4
    for wrong in ((900, 0, 10, 10), (0, 600, 10, 10), (0, 0, 0, 10), (0, 0, 10, 5000)):
        with pytest.raises(ValueError, match="tile"):
            images.tile(0, *wrong)


def test_an_image_is_decoded_once_while_it_is_looked_at():
    reads = []

    def read(index):
        reads.append(index)
        return np.zeros((64, 64, 3), np.uint8)

    images = ImageSet(["a", "b", "c"], read)
    threads = [threading.Thread(target=images.tile, args=(0, 0, 0, 32, 32)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reads == [0]
    for index in (1, 0, 2, 1):
        images.size(index)
    assert reads == [0, 1, 2, 1]


@pytest.mark.parametrize("names", [[], ["a", "a"], ["../a"], ["/a"], ["a/../b"], ["a\nb"], [""], ["a\\b"], ["."]])
def test_names_that_are_no_file_names_are_refused(names):
    with pytest.raises(DataError):
        ImageSet(names, lambda index: np.zeros((4, 4, 3), np.uint8))
