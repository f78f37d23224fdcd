# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from cloud_layouts import PAIRS, flyingthings, flyingthings_frame, write_flo, write_pfm, write_png

from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError, DataError
from vision3d.readers._flow_images import read_flo, read_pfm
from vision3d.readers.flow_s import FLYING
from vision3d.readers.flow_s import SPEC as FLOW_S
from vision3d.readers.flyingthings import SPEC


def opened(source, **options):
    return SPEC.open(str(source), DataConfig(**options))


def test_points_and_flow_are_those_that_were_rendered(tmp_path):
    first, second, seen = flyingthings_frame(tmp_path / "val", "0000003", 3)
    keep = seen & (first[..., 2] < 35) & (second[..., 2] < 35)
    assert 0.5 < keep.mean() < seen.mean() < 1
    reader = opened(tmp_path)
    pair, truth = reader[0], reader.truth(0)
    np.testing.assert_allclose(pair.source, first[keep], atol=1e-4)
    np.testing.assert_allclose(pair.target, second[keep], atol=1e-3)
    np.testing.assert_allclose(truth.flow, (second - first)[keep], atol=1e-3)
    assert (reader.key(0), pair.axes, pair.camera.fx) == ("val/0000003", "camera", 1050)
    # The camera sees each point at its pixel.
    v, u = np.nonzero(keep)
    x, y, z = pair.source.astype(float).T
    np.testing.assert_allclose(pair.camera.cx - pair.camera.fx * x / z, u, atol=1e-3)
    np.testing.assert_allclose(pair.camera.cy - pair.camera.fy * y / z, v, atol=1e-3)


def test_equals_the_prepared_data(tmp_path):
    first, second, seen = flyingthings_frame(tmp_path / "raw" / "val", "0000000", 0)
    keep = seen & (first[..., 2] < 35) & (second[..., 2] < 35)
    folder = tmp_path / FLYING / "val" / "0000000"
    folder.mkdir(parents=True)
    np.save(folder / "pc1.npy", (first[keep] * [-1, 1, -1]).astype(np.float32))
    np.save(folder / "pc2.npy", (second[keep] * [-1, 1, -1]).astype(np.float32))
    raw, prepared = opened(tmp_path / "raw"), FLOW_S.open(str(tmp_path / FLYING), DataConfig())
    np.testing.assert_allclose(raw[0].source, prepared[0].source, atol=1e-4)
    np.testing.assert_allclose(raw.truth(0).flow, prepared.truth(0).flow, atol=1e-3)
    assert raw.key(0) == prepared.key(0)
    assert raw[0].camera == prepared[0].camera or raw[0].camera.params == prepared[0].camera.params


def test_splits_draws_and_recognition(tmp_path):
    source = flyingthings(tmp_path / "data")
    flyingthings_frame(tmp_path / "data" / "train", "0000000", 9)
    assert len(opened(source)) == PAIRS + 1
    assert len(opened(source, split="val")) == PAIRS
    assert [opened(source, split="train").key(0)] == ["train/0000000"]
    with pytest.raises(ConfigError, match="not 'test'"):
        opened(source, split="test")
    assert (SPEC.match(source), SPEC.match(str(tmp_path))) == (0.95, 0.94)
    assert SPEC.check(source) == []
    whole, drawn = opened(source), opened(f"{source}?points=300")
    rows = {tuple(point): i for i, point in enumerate(whole[2].source)}
    of_source = [rows[tuple(point)] for point in drawn[2].source]
    assert len(set(of_source)) == 300
    np.testing.assert_array_equal(drawn.truth(2).flow, whole.truth(2).flow[of_source])


def test_damage_is_named(tmp_path):
    source = flyingthings(tmp_path / "data")
    val = tmp_path / "data" / "val"
    (val / "disparity_occlusions/left/0000001.png").unlink()
    with pytest.raises(DataError, match=r"disparity_occlusions/left/0000001\.png: no such file"):
        opened(source)
    reader = opened(source, skip_bad=True)
    assert list(reader.bad) == [1]
    change = val / "disparity_change/left/into_future/0000000.pfm"
    write_pfm(change, np.ones((5, 7)))
    with pytest.raises(DataError, match=r"0000000\.pfm: is of size \(7, 5\), the disparity \(96, 54\)"):
        reader[0]
    write_png(val / "flow_occlusions/left/into_future/0000002.png", np.full((54, 96), 255, dtype=np.uint8))
    with pytest.raises(DataError, match="leaves no point within 35 m that is seen in both frames"):
        reader[2]


def test_pfm_and_flo_files(tmp_path):
    rng = np.random.default_rng(0)
    for shape in ((5, 7), (5, 7, 3)):
        image = rng.normal(size=shape).astype(np.float32)
        write_pfm(tmp_path / "a.pfm", image)
        np.testing.assert_array_equal(read_pfm(tmp_path / "a.pfm"), image)
    big = b"Pf\n2 1\n1.0\n" + np.array([3, 4], dtype=">f4").tobytes()
    (tmp_path / "b.pfm").write_bytes(big)
    np.testing.assert_array_equal(read_pfm(tmp_path / "b.pfm"), [[3, 4]])
    flow = rng.normal(size=(4, 6, 2)).astype(np.float32)
    write_flo(tmp_path / "a.flo", flow)
    np.testing.assert_array_equal(read_flo(tmp_path / "a.flo"), flow)
    for path, read in ((tmp_path / "a.pfm", read_pfm), (tmp_path / "a.flo", read_flo)):
        data = path.read_bytes()
        for content, words in ((data[:-1], "the file is cut off"), (b"P6\n1 1\n255\n", "is not a"), (b"", "is not a")):
            path.write_bytes(content)
            with pytest.raises(DataError, match=words):
                read(path)
        path.unlink()
        with pytest.raises(DataError, match="no such file"):
            read(path)


def test_real_disparity(shared_data):
    disparity = read_pfm(shared_data / "flyingthings3d_pair" / "disp1.pfm")
    assert disparity.shape == (540, 960)
    depth = 1050 / np.abs(disparity)
    assert np.isfinite(depth).all()
    # Rows are not upside down: the image has edges where the disparity jumps.
    from vision3d.readers._images import read_image

    image = read_image(shared_data / "flyingthings3d_pair" / "image1.png").astype(float).mean(axis=2)

    def agreement(a):
        edges = np.abs(np.diff(a, axis=0))[:, :-1] > 1
        gradient = np.abs(np.diff(image, axis=0))[:, :-1]
        return gradient[edges].mean() / gradient.mean()

    assert agreement(np.abs(disparity)) > 1.5 * agreement(np.abs(disparity)[::-1])
