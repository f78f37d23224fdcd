# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from vision3d.contracts import DataConfig, Reader
from vision3d.errors import ConfigError, DataError
from vision3d.readers._aerial_layout import PLACES
from vision3d.readers._aerial_shapes import KINDS
from vision3d.readers.aerial import CLASSES, NOT_IN_DENSE, SPEC
from vision3d.types.images import BoxTruth, LabeledImage


def opened(source, **config):
    return SPEC.open(source, DataConfig(**config))


def same(a, b):
    """Whether two objects hold equal arrays (NaN equals NaN)."""
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)]
    return all(
        np.array_equal(x, y, equal_nan=x.dtype.kind == "f") if isinstance(x, np.ndarray) else True for x, y in pairs
    )


def from_box(box):
    """(4, 2) corners of (cx, cy, w, h, theta), independent of the code under test."""
    x, y, w, h, t = box
    turn = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    return np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2 @ turn.T + (x, y)


@pytest.fixture(params=["dense", "sparse", "mixed"])
def source(request):
    return f"aerial:{request.param}"


def test_a_scene_is_an_image_with_points_and_its_truth(source):
    reader = opened(source)
    assert isinstance(reader, Reader)
    assert SPEC.samples == reader.samples.__name__ == "LabeledImage"
    assert len(reader) == 64
    sample, truth = reader[3], reader.truth(3)
    assert isinstance(sample, LabeledImage)
    assert isinstance(truth, BoxTruth)
    assert sample.name == reader.key(3) == "scene-000003"
    assert sample.classes == truth.classes == reader.classes == CLASSES
    assert sample.image.shape == (256, 256, 3)
    assert sample.image.dtype == np.uint8
    n = len(truth.boxes)
    assert n > 0
    assert sample.points.shape == (n, 2)
    assert truth.quads.shape == (n, 4, 2)
    assert truth.boxes.shape == (n, 5)
    assert truth.boxes.dtype == truth.quads.dtype == sample.points.dtype == np.float64
    assert truth.labels.dtype == sample.ids.dtype == np.int64
    assert np.array_equal(sample.ids, np.arange(n))
    assert np.array_equal(sample.labels, truth.labels)
    assert not truth.difficult.any()
    assert truth.size == (256, 256)


def test_a_scene_depends_on_its_number_and_the_seed_alone(source):
    one, other = opened(source + "?scenes=7"), opened(source + "?scenes=9")
    np.random.seed(1)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = one[5], one.truth(5)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert other.truth(2) is not None
    assert same(first[0], other[5])
    assert same(first[1], other.truth(5))
    assert same(first[0], opened(source, select="5:6")[0])
    assert not same(first[0], other[4])
    assert not same(first[0], opened(source + "?seed=1")[5])


def test_splits_share_no_scene():
    images = {}
    for split in ("all", "train", "val", "test"):
        reader = opened("aerial:sparse?scenes=2", split=split)
        for index in range(2):
            images[reader.key(index)] = reader[index].image.tobytes()
    assert len(images) == len(set(images.values())) == 8
    assert "train-000001" in images


def test_sample_and_truth_come_from_one_making(source, monkeypatch):
    reader = opened(source)
    made = []
    make = reader._make
    monkeypatch.setattr(reader, "_make", lambda name, number: made.append(number) or make(name, number))
    for index in (0, 1, 0):
        assert len(reader[index].points) == len(reader.truth(index).boxes)
    assert made == [0, 1]
    with pytest.raises(IndexError):
        reader[64]


def test_boxes_are_le90_and_agree_with_the_corners(source):
    reader = opened(source)
    for index in range(6):
        truth = reader.truth(index)
        assert (truth.boxes[:, 2] >= truth.boxes[:, 3]).all()
        assert (truth.boxes[:, 4] >= -np.pi / 2).all()
        assert (truth.boxes[:, 4] < np.pi / 2).all()
        for box, quad, heading in zip(truth.boxes, truth.quads, truth.heading, strict=True):
            mine = from_box(box)
            apart = np.linalg.norm(mine[:, None] - quad[None], axis=2)
            assert apart.min(axis=1).max() < 1e-9
            edge = quad[1] - quad[0], quad[2] - quad[1]
            assert edge[0][0] * edge[1][1] - edge[0][1] * edge[1][0] > 0  # clockwise on screen
            if np.isfinite(heading):  # the first two corners are the front
                ahead = quad[:2].mean(axis=0) - quad.mean(axis=0)
                assert np.allclose(ahead / np.linalg.norm(ahead), [np.cos(heading), np.sin(heading)])


def test_no_object_is_cut_or_lies_on_another(source):
    shapely = pytest.importorskip("shapely")
    nearest = []
    for index in range(8):
        quads = opened(source).truth(index).quads
        assert quads.min() >= 0
        assert quads.max() <= 255
        shapes = shapely.polygons(quads)
        areas = shapely.area(shapely.intersection(shapes[:, None], shapes[None]))
        np.fill_diagonal(areas, 0)
        assert areas.max() < 1e-9
        apart = shapely.distance(shapes[:, None], shapes[None])
        np.fill_diagonal(apart, np.inf)
        nearest.extend(apart.min(axis=1))
    if source == "aerial:dense":
        assert 1 < np.median(nearest) < 3
    if source == "aerial:sparse":
        assert np.median(nearest) > 6


def test_sizes_and_aspects_are_those_of_the_classes():
    seen = {name: [] for name in CLASSES}
    for source in ("aerial:dense", "aerial:sparse"):
        reader = opened(source)
        for index in range(20):
            truth = reader.truth(index)
            for box, label in zip(truth.boxes, truth.labels, strict=True):
                seen[CLASSES[label]].append(box[2:4])
    for name, sides in seen.items():
        long, short = np.array(sides).T
        assert len(sides) >= 3, name
        assert long.min() > 0.9 * 16
        assert long.max() < 1.08 * 120
        assert (long / short).max() < 5 * 1.16
    long = np.array(seen["small-vehicle"])[:, 0]
    assert 14.8 < long.min() < 19
    assert 20 < long.max() < 25.8
    tank = np.array(seen["storage-tank"])
    assert np.allclose(tank[:, 0], tank[:, 1])


def test_points_lie_in_the_ellipse_and_change_nothing_else():
    centered, near, far = (opened(f"aerial:dense?jitter={j}") for j in (0, 0.1, 0.3))
    reach = []
    for index in range(6):
        truth = near.truth(index)
        assert np.array_equal(centered[index].points, truth.boxes[:, :2])
        assert np.array_equal(centered[index].image, near[index].image)
        assert same(truth, far.truth(index))
        step = near[index].points - truth.boxes[:, :2]
        assert np.allclose(3 * step, far[index].points - truth.boxes[:, :2])
        c, s = np.cos(truth.boxes[:, 4]), np.sin(truth.boxes[:, 4])
        along = np.column_stack([c * step[:, 0] + s * step[:, 1], -s * step[:, 0] + c * step[:, 1]])
        reach.extend(np.linalg.norm(along / (0.1 * truth.boxes[:, 2:4]), axis=1))
    assert max(reach) < 1 + 1e-9
    assert 0.6 < np.mean(reach) < 0.74  # 2/3 for a uniform draw


def test_objects_stand_out_but_not_always_by_much():
    """Inside and outside differ at each object's edge, though for some by little; noise is there to hide in."""
    steps = []
    for source in ("aerial:dense", "aerial:sparse"):
        reader = opened(source + "?noise=0&seed=3")
        for index in range(8):
            grey = reader[index].image.astype(float).mean(axis=2)
            for x, y, w, h, t in reader.truth(index).boxes:
                u, v = np.meshgrid(np.linspace(-0.4, 0.4, 9), np.linspace(-0.4, 0.4, 9))
                inside = x + np.cos(t) * w * u - np.sin(t) * h * v, y + np.sin(t) * w * u + np.cos(t) * h * v
                own = grey[inside[1].round().astype(int), inside[0].round().astype(int)]
                around = [from_box((x, y, w + 3, h + 3, t)).round().astype(int).clip(0, 255)]
                outer = grey[around[0][:, 1], around[0][:, 0]]
                steps.append(max(abs(own.mean() - outer.mean()), own.std()))
    steps = np.array(steps)
    assert steps.min() > 3
    assert np.percentile(steps, 10) < 20
    assert np.percentile(steps, 90) > 40


def test_options_do_what_they_say(source):
    truth = opened(source + "?objects=2&size=200").truth(0)
    assert truth.size == (200, 200)
    assert 1 <= len(truth.boxes) <= 2
    reader = opened(source + "?classes=small-vehicle,ship")
    assert reader.classes == ("small-vehicle", "ship")  # in the order of the table
    assert {int(label) for i in range(16) for label in reader.truth(i).labels} == {0, 1}
    only = f"{source}?classes=small-vehicle&objects=3"
    lengths = [np.concatenate([opened(f"{only}&scale={s}").truth(i).boxes[:, 2] for i in range(4)]) for s in (1, 2)]
    assert lengths[0].max() < 26 < 29 < lengths[1].min()
    plain, weak = (opened(f"{source}?contrast={c}&noise=0")[0].image.astype(float) for c in (1, 0.2))
    assert not np.array_equal(plain, weak)
    clean, noisy = (opened(f"{source}?noise={n}")[0].image.astype(float) for n in (0, 5))
    assert np.abs(np.diff(noisy, axis=0)).mean() > np.abs(np.diff(clean, axis=0)).mean() + 3


def test_every_class_is_found_where_it_may_be():
    for name in CLASSES:
        assert (name in NOT_IN_DENSE) == all(
            name not in PLACES[p].classes for p in ("car park", "marina", "depot", "apron")
        )
        reader = opened(f"aerial:mixed?classes={name}&size=192")
        assert all(len(reader.truth(i).boxes) for i in range(3))
    assert tuple(KINDS) == CLASSES


def test_outlines_touch_all_sides_of_their_boxes():
    rng = np.random.default_rng(0)
    for name, kind in KINDS.items():
        for _ in range(20):
            parts = kind.parts(rng, rng.uniform(*kind.aspect))
            outline = parts[0][0]
            assert np.allclose(outline.min(axis=0), -0.5), name
            assert np.allclose(outline.max(axis=0), 0.5), name
            assert all(np.abs(polygon).max() < 0.5 + 1e-9 for polygon, _ in parts), name


@pytest.mark.parametrize(
    ("source", "config", "words"),
    [
        ("aerial:rows", {}, "aerial:rows: the generated scenes are aerial:mixed, aerial:dense, aerial:sparse"),
        ("aerial:dense?sice=3", {}, "unknown option 'sice' after '?'; did you mean 'size'?"),
        ("aerial:dense?size=20", {}, "must lie between 96 and 8192"),
        ("aerial:?classes=boat", {}, "there are plane, small-vehicle"),
        ("aerial:?classes=ships", {}, "did you mean 'ship'?"),
        ("aerial:?classes=", {}, "name some of plane"),
        ("aerial:dense?classes=tennis-court", {}, "no dense scene holds a tennis-court"),
    ],
)
def test_mistakes_are_told(source, config, words):
    with pytest.raises(DataError) as error:
        opened(source, **config)
    assert words in str(error.value)
    (problem,) = SPEC.check(source)
    assert words in problem


def test_what_the_reader_cannot_do_is_told(tmp_path):
    for config, words in (
        ({"split": "left"}, "splits all, train, val, test, not 'left'"),
        ({"truth": tmp_path}, "computes its own truth"),
        ({"size": 100}, r"write aerial:mixed\?size=100"),
        ({"select": "80:"}, "leaves none of the 64 scenes"),
    ):
        with pytest.raises(ConfigError, match=words):
            opened("aerial:", **config)
    assert SPEC.check("aerial:sparse") == []
    assert SPEC.match("aerial:") == 1.0
    assert SPEC.match("/data/aerial") == 0.0
