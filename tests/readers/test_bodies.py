# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from vision3d.contracts import DataConfig, Reader
from vision3d.errors import ConfigError, DataError
from vision3d.geometry.se3 import invert, rotation_angle_deg, transform
from vision3d.readers._bodies_boxes import BoxesConfig, boxes_world
from vision3d.readers._bodies_fragments import cut
from vision3d.readers._bodies_street import StreetConfig, street_world
from vision3d.readers.bodies import SPEC
from vision3d.types.clouds import FLOW_CLASSES, CloudPair, FlowTruth

STREET = "bodies:street?columns=300"


def opened(source, **config):
    return SPEC.open(source, DataConfig(**config))


def arrays(*objects):
    """Every array of samples and truths, by field."""
    out = {}
    for item in objects:
        for field in fields(item):
            value = getattr(item, field.name)
            if isinstance(value, np.ndarray):
                out[type(item).__name__, field.name] = value
    return out


def same(a, b):
    one, other = arrays(*a), arrays(*b)
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def fragments(tmp_path_factory):
    """A folder with the cloud of a bumpy wall, a transform that is no cloud, and another file."""
    folder = tmp_path_factory.mktemp("fragments")
    rng = np.random.default_rng(0)
    xy = rng.uniform(-1.5, 1.5, (6000, 2))
    np.save(folder / "wall.npy", np.column_stack([xy, 2.5 + 0.3 * np.sin(3 * xy[:, 0]) * np.cos(2 * xy[:, 1])]))
    np.save(folder / "gt.npy", np.eye(4))
    (folder / "notes.txt").write_text("a wall")
    return folder


@pytest.fixture(params=["boxes", "street", "fragments"])
def source(request, fragments):
    return {
        "boxes": "bodies:boxes?points=300",
        "street": STREET,
        "fragments": f"bodies:fragments?fragments={fragments}&points=300",
    }[request.param]


def test_a_scene_is_a_pair_and_its_truth(source):
    reader = opened(source)
    assert isinstance(reader, Reader)
    assert len(reader) == 200
    assert SPEC.samples == reader.samples.__name__ == "CloudPair"
    pair, truth = reader[3], reader.truth(3)
    assert isinstance(pair, CloudPair)
    assert isinstance(truth, FlowTruth)
    assert pair.name == reader.key(3) == "scene-000003"
    for cloud in (pair.source, pair.target, truth.flow, truth.points):
        assert cloud.dtype == np.float32
        assert np.isfinite(cloud).all()
    assert truth.flow.shape == pair.source.shape == (len(truth.valid), 3) == (len(truth.dynamic), 3)
    assert truth.valid.all()
    assert np.array_equal(truth.points, pair.source)
    assert truth.points is not pair.source
    assert (truth.axes, truth.dt_s, truth.camera) == (pair.axes, pair.dt_s, pair.camera)
    assert 0 < truth.dynamic.sum() < len(truth.dynamic)


def test_a_scene_depends_on_its_number_and_the_seed_alone(source):
    one = opened(source + "&scenes=7")
    np.random.seed(1)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = one[5], one.truth(5)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    other = opened(source + "&scenes=9")
    assert other.truth(2) is not None
    assert same(first, (other[5], other.truth(5)))
    assert same(first, (opened(source, select="5:6")[0], opened(source, select="5:6").truth(0)))
    assert not same(first, (other[4], other.truth(4)))
    seeded = opened(source + "&seed=1")
    assert not same(first, (seeded[5], seeded.truth(5)))


def test_splits_share_no_scene(source):
    clouds = {}
    for split in ("all", "train", "val", "test"):
        reader = opened(source + "&scenes=3", split=split)
        assert len(reader) == 3
        for index in range(3):
            clouds[reader.key(index)] = reader[index].source.tobytes()
    assert len(clouds) == len(set(clouds.values())) == 12
    assert "train-000002" in clouds


def test_the_clouds_share_no_point(source):
    reader = opened(source + "&noise=0&still=1&ego=0")
    pair, truth = reader[0], reader.truth(0)
    rows = [set(map(bytes, cloud)) for cloud in (pair.source, pair.target)]
    assert not rows[0] & rows[1]
    assert np.abs(truth.flow).max() == 0
    assert not truth.dynamic.any()


def test_the_two_clouds_have_the_sizes_asked_for(source):
    pair = opened(source + "&points=256&target_points=100")[0]
    assert (len(pair.source), len(pair.target)) == (256, 100)
    pair = opened(source + "&points=256")[0]
    assert (len(pair.source), len(pair.target)) == (256, 256)
    pair = opened(source + "&points=0")[0]
    assert len(pair.source) > 2500
    assert len(pair.target) > 2500


def test_the_number_of_points_does_not_change_the_scene(source):
    motions = [opened(f"{source}&points={n}").truth(0).T_target_source for n in (50, 60)]
    assert np.array_equal(*motions)


def test_sample_and_truth_come_from_one_making(source, monkeypatch):
    reader = opened(source)
    made = []
    make = reader._make
    monkeypatch.setattr(reader, "_make", lambda name, number: made.append(number) or make(name, number))
    for index in (0, 1, 0):
        assert reader[index].source.shape == reader.truth(index).flow.shape
    assert made == [0, 1]
    assert reader[-1].name == reader.key(-1) == "scene-000199"
    with pytest.raises(IndexError):
        reader[200]


def test_what_stands_still_moves_as_the_sensor_does(source):
    reader = opened(source + "&ego=1")
    for index in range(3):
        truth = reader.truth(index)
        static = ~truth.dynamic
        ego = transform(truth.T_target_source, truth.points.astype(float)) - truth.points
        residual = np.linalg.norm(truth.flow - ego, axis=1)
        assert residual[static].max() <= 0.05 + 1e-5
        assert np.median(residual[static]) < 1e-5
        assert residual[truth.dynamic].min() > 0.05 - 1e-5
    told = reader[0].T_target_source
    assert (told is not None) == (reader.preset == "street")


def test_options_of_all_scenes_do_what_they_say(source):
    assert np.abs(opened(source + "&ego=0").truth(1).T_target_source - np.eye(4)).max() < 1e-12
    assert not opened(source + "&still=1").truth(1).dynamic.any()
    slow = "&speed=0.2&still=0&ego=0&turn=0" if "street" not in source else "&speed=0.2&still=0&ego=0"
    speed = np.linalg.norm(opened(source + slow).truth(1).flow, axis=1)
    assert 0.05 < speed.max() < 0.32
    quiet, loud = (opened(f"{source}&noise={n}")[1].source for n in (0, 0.1))
    if "street" in source or "fragments" in source:
        assert (loud - quiet).std() > 0.04


@pytest.mark.parametrize("points", [0, 400])
def test_boxes_lie_in_view_and_nearer_than_asked(points):
    reader = opened(f"bodies:?far=20&noise=0&points={points}")
    for index in range(2):
        pair, truth = reader[index], reader.truth(index)
        assert pair.axes == "camera"
        assert pair.source_ground is None
        for cloud in (pair.source, pair.target, pair.source + truth.flow):
            z = cloud[:, 2]
            u = pair.camera.cx - pair.camera.fx * cloud[:, 0] / z
            v = pair.camera.cy - pair.camera.fy * cloud[:, 1] / z
            assert z.min() > 0.3 - 1e-5
            assert z.max() < 20.0 + 1e-5
            assert np.abs(u - 479.5).max() < 480.001
            assert np.abs(v - 269.5).max() < 270.001


def test_boxes_keep_hidden_points_when_asked():
    full = opened("bodies:boxes?points=0&occluded=1")
    shown = opened("bodies:boxes?points=0")
    assert all(len(full[i].source) > len(shown[i].source) for i in range(3))
    street = opened(STREET), opened(STREET + "&occluded=0")
    assert all(len(street[0][i].source) > len(street[1][i].source) for i in range(3))


def boxes(objects=(3, 8), speed=2.0, turn=10.0, still=0.2, alike=0.5, ego=1.0, far=35.0, seed=0):
    config = BoxesConfig(objects, speed, turn, still, alike, ego, far)
    return boxes_world(config, np.random.default_rng(seed))


def looks(body):
    return tuple((s.kind, *s.half.round(9), *s.T_body_solid[:3, 3].round(9)) for s in body.solids)


def test_boxes_hold_the_bodies_asked_for():
    counts = [len(boxes(objects=(n, n), seed=4).bodies) for n in (1, 5, 20)]
    assert counts[1] - counts[0] in range(1, 9)
    assert counts[2] >= 22
    few = boxes(objects=(6, 6), alike=1.0).bodies[:6]
    assert len(set(map(looks, few))) == 1
    assert len({body.T_world_body.tobytes() for body in few}) == 6
    assert len(set(map(looks, boxes(objects=(6, 6), alike=0.0).bodies[:6]))) == 6
    motions = [b.motion for seed in range(20) for b in boxes(still=0.0, speed=1.5, turn=20.0, seed=seed).bodies]
    bodies = [b for seed in range(20) for b in boxes(still=0.0, speed=1.5, turn=20.0, seed=seed).bodies]
    steps = [
        float(np.linalg.norm(transform(m, b.T_world_body[:3, 3]) - b.T_world_body[:3, 3]))
        for m, b in zip(motions, bodies, strict=True)
    ]
    angles = rotation_angle_deg(np.stack(motions)[:, :3, :3])
    assert 1.3 < max(steps) < 1.5
    assert 18 < angles.max() < 20
    # Smaller scenes hold smaller bodies.
    assert boxes(far=7.0).bodies[0].reach_m == pytest.approx(boxes(far=35.0).bodies[0].reach_m / 5)


def test_bodies_seldom_meet():
    meet = 0
    for seed in range(20):
        bodies = boxes(objects=(5, 5), seed=seed).bodies[:5]
        centers = np.stack([b.T_world_body[:3, 3] for b in bodies])
        gaps = np.linalg.norm(centers[:, None] - centers[None], axis=2)
        reach = np.array([b.reach_m for b in bodies])
        meet += int((gaps < reach[:, None] + reach).sum() - 5)
    assert meet < 10


def test_a_street_has_ground_classes_and_plausible_speeds():
    reader = opened("bodies:street?scenes=6")
    seen = np.zeros(len(FLOW_CLASSES), dtype=int)
    for index in range(6):
        pair, truth = reader[index], reader.truth(index)
        assert pair.axes == "lidar"
        assert 25_000 < len(pair.source) < 38_400
        assert pair.T_target_source is not None
        seen += np.bincount(truth.classes, minlength=5)
        ground = truth.ground
        assert np.array_equal(ground, pair.source_ground)
        assert pair.target_ground.shape == (len(pair.target),)
        assert 0.25 < ground.mean() < 0.85
        assert 1.6 - 0.1 < -np.median(pair.source[ground, 2]) < 2.0 + 0.1
        assert np.abs(pair.source[ground, 2] - np.median(pair.source[ground, 2])).max() < 80 * np.tan(0.011) + 0.2
        assert not truth.dynamic[ground].any()
        assert (truth.classes[ground] == 0).all()
        assert (truth.classes[truth.dynamic] > 0).all()
        ego = transform(truth.T_target_source, truth.points.astype(float)) - truth.points
        speed = np.linalg.norm(truth.flow - ego, axis=1)
        for name, most in (("CAR", 2.2), ("OTHER_VEHICLES", 2.3), ("PEDESTRIAN", 0.19), ("WHEELED_VRU", 0.75)):
            of_class = speed[truth.classes == FLOW_CLASSES.index(name)]
            assert of_class.max(initial=0) < most
        shift, turn = invert(truth.T_target_source)[:3, 3], rotation_angle_deg(truth.T_target_source[:3, :3])
        assert np.linalg.norm(shift) <= 1.5 + 0.01
        assert turn <= 2.0
    assert (seen > 30).all()


def test_street_motions_turn_about_the_roads_normal_and_nothing_collides():
    for seed in range(5):
        world = street_world(StreetConfig((12, 12), 2.0, 0.0, 1.5), np.random.default_rng(seed))
        road = next(b for b in world.bodies if b.ground)
        up = road.T_world_body[:3, 2]
        users = [b for b in world.bodies if b.category]
        moving = [b for b in users if not np.array_equal(b.motion, np.eye(4))]
        assert len(moving) >= 8
        for body in moving:
            assert np.abs(body.motion[:3, :3] @ up - up).max() < 1e-9
            step = transform(body.motion, body.T_world_body[:3, 3]) - body.T_world_body[:3, 3]
            assert abs(step @ up) < 1e-9
        for place in (np.eye(4), None):
            centers = np.stack([transform(b.motion if place is None else place, b.T_world_body[:3, 3]) for b in users])
            gaps = np.linalg.norm(centers[:, None] - centers[None], axis=2)
            np.fill_diagonal(gaps, np.inf)
            assert gaps.min() > 0.6


def test_beams_columns_and_range_are_those_asked_for():
    pair = opened("bodies:street?beams=64&columns=120&far=30&noise=0")[0]
    reach = np.linalg.norm(pair.source, axis=1)
    elevation = np.degrees(np.arcsin(pair.source[:, 2] / reach))
    assert reach.max() < 30
    rings = np.unique(np.abs(elevation[:, None] - np.linspace(2, -24.8, 64)).argmin(axis=1))
    assert 40 < len(rings) <= 64
    assert len(pair.source) <= 64 * 120
    objects = [len(opened(f"{STREET}&objects={n}").truth(0).classes) for n in (1, 40)]
    assert min(objects) > 0
    users = [
        sum(b.category > 0 for b in street_world(StreetConfig(n, 2.0, 0.2, 1.5), np.random.default_rng(0)).bodies)
        for n in ((1, 1), (30, 30))
    ]
    assert users[1] > users[0]


def test_fragments_are_halves_of_the_real_points(fragments):
    reader = opened(f"bodies:fragments?fragments={fragments}&points=0&noise=0&still=0&speed=0.5&ego=0.2")
    pair, truth = reader[0], reader.truth(0)
    assert len(pair.source) == len(pair.target) == 3000
    assert pair.axes == "camera"
    assert pair.camera is None
    # Every moved point comes to lie beside one of the other half's: the parts agree on their motion.
    moved = pair.source + truth.flow
    nearest = np.sqrt(((moved[:, None] - pair.target[None]) ** 2).sum(axis=2)).min(axis=1)
    still = np.sqrt(((pair.source[:, None] - pair.target[None]) ** 2).sum(axis=2)).min(axis=1)
    assert np.median(nearest) < 0.05
    assert np.percentile(nearest, 99) < 0.12
    assert nearest.mean() < 0.7 * still.mean()
    turned = opened(f"bodies:fragments?fragments={fragments}&still=0&speed=0&ego=0&turn=30").truth(0)
    rigid = opened(f"bodies:fragments?fragments={fragments}&still=0&speed=0&ego=0&turn=0").truth(0)
    assert np.abs(turned.flow).max() > 0.02
    assert np.abs(rigid.flow).max() < 1e-6


def test_parts_are_compact_disjoint_and_large_enough():
    points = np.random.default_rng(0).uniform(-1, 1, (4000, 3))
    part = cut(points, 5, np.random.default_rng(1))
    assert part.max() in range(3, 6)
    spread = np.sqrt(points.var(axis=0).sum())
    for index in range(1, part.max() + 1):
        own = points[part == index]
        assert len(own) >= 30
        assert np.linalg.norm(own - own.mean(axis=0), axis=1).max() < 1.3 * spread
    # A fragment too sparse for the parts asked for is left whole.
    assert cut(points[:20], 3, np.random.default_rng(0)).max() == 0


def test_real_fragments_move_in_parts(shared_data):
    folder = shared_data / "indoor_fragments" / "geotransformer_demo"
    reader = opened(f"bodies:fragments?fragments={folder}&scenes=6&points=2048")
    shares = []
    for index in range(6):
        pair, truth = reader[index], reader.truth(index)
        assert len(pair.source) == 2048
        assert 0.3 < np.median(pair.source[:, 2]) < 4  # in front of the camera
        shares.append(truth.dynamic.mean())
    assert 0.1 < np.mean(shares) < 0.7


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("bodies:spheres", "bodies:spheres: the generated scenes are bodies:boxes, bodies:street, bodies:fragments"),
        ("bodies:?scene=3", r"unknown option 'scene' after '\?'; did you mean 'scenes'\?"),
        ("bodies:boxes?beams=32", "unknown option 'beams'"),
        ("bodies:?objects=8-3", "option 'objects' cannot be '8-3': must be a number or LOW-HIGH within 1 and 100"),
        ("bodies:?objects=few", "option 'objects' cannot be 'few'"),
        ("bodies:?noise=nan", "option 'noise' cannot be 'nan': must lie between 0 and 1"),
        ("bodies:?scenes=0", "option 'scenes' cannot be '0'"),
        ("bodies:street?beams=4", "option 'beams' cannot be '4': must lie between 8 and 128"),
        ("bodies:fragments", r"add \?fragments=FOLDER, a folder with .npy clouds"),
        ("bodies:fragments?fragments=/no/such", "/no/such: no such folder"),
    ],
)
def test_what_cannot_be_made_is_one_line(source, words):
    (problem,) = SPEC.check(source)
    assert "\n" not in problem
    with pytest.raises(DataError, match=words):
        opened(source)


def test_folders_without_clouds_are_named(tmp_path):
    source = f"bodies:fragments?fragments={tmp_path}"
    np.save(tmp_path / "small.npy", np.zeros((10, 3)))
    with pytest.raises(DataError, match=r"holds no \.npy cloud of shape \(N, 3\) with 500 points or more"):
        opened(source)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"objects\.npy: is no \.npy file of numbers"):
        opened(source)
    (tmp_path / "objects.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"objects\.npy: is no \.npy file of numbers"):
        opened(source)


def test_other_settings_are_checked():
    with pytest.raises(ConfigError, match="bodies: has the splits all, train, val, test, not 'dev'"):
        opened("bodies:", split="dev")
    with pytest.raises(ConfigError, match="select '5:2' leaves none of the 200 scenes"):
        opened("bodies:", select="5:2")
    with pytest.raises(ConfigError, match="select 'x' is not START:STOP:STEP"):
        opened("bodies:", select="x")
    with pytest.raises(ConfigError, match="computes its own truth"):
        opened("bodies:", truth=Path("poses.txt"))
    assert [opened("bodies:?scenes=9", select="1::4").key(i) for i in range(2)] == ["scene-000001", "scene-000005"]
    reader = opened("bodies:?far=1&scenes=20&ego=5")
    with pytest.raises(
        DataError, match=r"bodies:boxes: scene-0000.. shows nothing: take a smaller ego or a larger far"
    ):
        [reader[index] for index in range(20)]


def test_a_uri_whose_preset_is_a_folder_here_is_still_opened():
    # The command line hands on what follows the colon when a path of that name exists.
    assert opened("boxes?scenes=3").name == opened("?scenes=3").name == opened("bodies:?scenes=3").name
    assert SPEC.match("bodies:street") == 1.0
    assert SPEC.match("boxes") == 0.0
    assert SPEC.check("bodies:street?scenes=2") == []


def test_mixed_repeats_the_scenes_of_its_presets() -> None:
    def reader(source: str) -> Reader:
        return SPEC.open(source, DataConfig(split="train"))

    mixed = reader("bodies:mixed?scenes=6&points=300")
    boxes, street = reader("bodies:boxes?scenes=6&points=300"), reader("bodies:street?scenes=6&points=900")
    for k in range(6):
        same = street if k % 3 == 2 else boxes
        assert np.array_equal(mixed[k].source, same[k].source)
        assert np.array_equal(mixed.truth(k).flow, same.truth(k).flow)
    assert [mixed[k].axes for k in range(3)] == ["camera", "camera", "lidar"]
    with pytest.raises(DataError, match="unknown option 'beams'"):
        reader("bodies:mixed?beams=64")
