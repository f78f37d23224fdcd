# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib

import numpy as np
import pytest
from cloud_layouts import CLOUD_DATA, PAIRS

from vision3d.contracts import DataConfig, Reader
from vision3d.errors import ConfigError
from vision3d.geometry.se3 import transform
from vision3d.types.clouds import CloudPair, FlowTruth

MODULES = {name: f"vision3d.readers.{name.replace('-', '_')}" for name in CLOUD_DATA}
SPECS = {name: importlib.import_module(module).SPEC for name, module in MODULES.items()}


@pytest.fixture(scope="module", params=list(CLOUD_DATA))
def made(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param.replace("-", "_"))
    return request.param, CLOUD_DATA[request.param](root / "data"), root


def test_every_reader_keeps_the_contract(made):
    name, source, _ = made
    spec = SPECS[name]
    assert (spec.name, spec.samples) == (name, "CloudPair")
    reader = spec.open(source, DataConfig())
    assert isinstance(reader, Reader)
    assert (len(reader), reader.samples, dict(reader.bad)) == (PAIRS, CloudPair, {})
    assert len({reader.key(i) for i in range(PAIRS)}) == PAIRS
    for i in range(PAIRS):
        pair, truth = reader[i], reader.truth(i)
        assert pair.name == reader.key(i)
        for cloud in (pair.source, pair.target):
            assert cloud.dtype == np.float32
            assert cloud.flags.c_contiguous
            assert np.isfinite(cloud).all()
            assert len(cloud) >= 600
        assert isinstance(truth, FlowTruth)
        count = len(pair.source)
        assert (truth.flow.shape, truth.flow.dtype) == ((count, 3), np.float32)
        assert (truth.valid.shape, truth.valid.dtype) == ((count,), np.bool_)
        assert (truth.axes, truth.dt_s) == (pair.axes, pytest.approx(0.1))
        assert truth.valid.mean() > 0.5
        np.testing.assert_array_equal(truth.points, pair.source)
        for mask in (truth.dynamic, truth.ground, pair.source_ground):
            assert mask is None or (mask.shape == (count,) and mask.dtype == np.bool_)
        assert 0.1 < np.linalg.norm(truth.flow[truth.valid], axis=1).mean() < 2
    with pytest.raises(IndexError):
        reader[PAIRS]
    with pytest.raises(ConfigError, match="file of true poses is for images"):
        spec.open(source, DataConfig(truth=__file__))


def test_the_truth_leads_onto_the_target(made):
    name, source, _ = made
    reader = SPECS[name].open(source, DataConfig())
    pair, truth = reader[1], reader.truth(1)
    from scipy.spatial import cKDTree

    tree = cKDTree(pair.target)
    without = np.median(tree.query(pair.source)[0])
    reached = np.median(tree.query((pair.source + truth.flow)[truth.valid])[0])
    # The target is a fresh sample of the surfaces, so the distance left is that between samples.
    assert reached < 0.9 * without
    if truth.T_target_source is not None:
        moved = transform(truth.T_target_source, pair.source) - pair.source - truth.flow
        off = np.linalg.norm(moved, axis=1)
        assert off[truth.valid & ~truth.dynamic].max() < 0.05
        assert off[truth.valid & truth.dynamic].min() > 0.05
        assert 0.02 < truth.dynamic[truth.valid].mean() < 0.5


def test_reading_in_any_order_and_from_a_selection_gives_the_same(made):
    name, source, _ = made
    reader = SPECS[name].open(source, DataConfig())
    truth_first = reader.truth(3)
    forward = [(reader[i].source, reader.truth(i).flow) for i in range(PAIRS)]
    np.testing.assert_array_equal(truth_first.flow, forward[3][1])
    chosen = SPECS[name].open(source, DataConfig(select="1::2"))
    assert [chosen.key(i) for i in range(2)] == [reader.key(1), reader.key(3)]
    np.testing.assert_array_equal(chosen[-1].source, forward[3][0])
    with pytest.raises(ConfigError, match=f"leaves none of the {PAIRS} pairs"):
        SPECS[name].open(source, DataConfig(select="9:"))


def test_every_layout_is_recognised_also_from_the_folder_above(made):
    name, source, root = made
    for path in (source, str(root)):
        scores = {other: spec.match(path) for other, spec in SPECS.items()}
        assert max(scores, key=scores.__getitem__) == name, scores
        assert sorted(scores.values())[-2] < scores[name]
    assert SPECS[name].check(source) == []
    if "?" not in source:
        problems = SPECS[name].check(f"{source}/nothing-here")
        assert len(problems) == 1
        assert "no such file or folder" in problems[0]


@pytest.mark.parametrize("source", ["", "/no/such/path", "\0", "a" * 5000, "a::b", "::", "?x=1", "~", "bodies:street"])
def test_match_never_raises(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [spec.match(source) for spec in SPECS.values()] == [0.0] * len(SPECS)


def test_unknown_options_are_named(made):
    name, source, _ = made
    with pytest.raises(Exception, match="unknown option 'pionts'"):
        SPECS[name].open(f"{source}?pionts=3", DataConfig())


def test_real_folders_are_recognised_from_above(shared_data):
    for folder, name in (("kitti_scene_flow", "kitti-flow"), ("av2_sensor_val", "av2")):
        scores = {other: spec.match(str(shared_data / folder)) for other, spec in SPECS.items()}
        assert max(scores, key=scores.__getitem__) == name, (folder, scores)
