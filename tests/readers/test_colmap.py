# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from layouts import colmap, write_image

from vision3d.contracts import DataConfig
from vision3d.errors import DataError
from vision3d.geometry.se3 import invert, transform
from vision3d.readers.colmap import SPEC


@pytest.fixture(params=["binary", "text"])
def dataset(request, tmp_path, small):
    return colmap(tmp_path / "model", small, binary=request.param == "binary")


def test_round_trip_binary_and_text(dataset, small):
    reader = SPEC.open(str(dataset), DataConfig())
    assert (reader.name, len(reader)) == ("model", 4)
    for i, (frame, T) in enumerate(small):
        np.testing.assert_array_equal(reader[i].image, frame.image)
        np.testing.assert_allclose(reader.truth(i).T_world_cam, T, atol=1e-9)
        assert reader[i].camera.params == pytest.approx(frame.camera.params)
    assert SPEC.check(str(dataset)) == []
    assert any("no scale of its own" in note for note in reader.notes)


@pytest.mark.parametrize("sub", ["", "sparse", "sparse/0", "model", "colmap_ground_truth"])
def test_usual_places_of_the_model(tmp_path, small, sub):
    root = colmap(tmp_path / "set", small, sub=sub)
    assert len(SPEC.open(str(root), DataConfig())) == 4
    assert SPEC.match(str(root)) == 0.9
    if sub:
        assert len(SPEC.open(str(root / sub), DataConfig())) == 4  # the model's own folder works too


def test_tracks_reproject_exactly_in_our_pixels(dataset, small):
    for size in (0, 80):
        reader = SPEC.open(str(dataset), DataConfig(size=size))
        tracks = reader.tracks()
        assert tracks.points_world.shape == (80, 3)
        assert (np.diff(tracks.point) >= 0).all()
        assert tracks.names == tuple(reader.key(i) for i in range(4))
        for i in range(4):
            mine = tracks.frame == i
            assert mine.sum() >= 20
            cam = transform(invert(reader.truth(i).T_world_cam), tracks.points_world[tracks.point[mine]])
            np.testing.assert_allclose(reader.camera(i).project(cam), tracks.uv_px[mine], atol=1e-6)


def test_tracks_of_a_selection_are_those_of_its_frames(dataset):
    everything = SPEC.open(str(dataset), DataConfig()).tracks()
    part = SPEC.open(str(dataset), DataConfig(select="1::2")).tracks()
    assert part.names == ("0001.png", "0003.png")
    for at, index in ((0, 1), (1, 3)):
        a = part.points_world[part.point[part.frame == at]]
        b = everything.points_world[everything.point[everything.frame == index]]
        np.testing.assert_array_equal(a, b)


def test_images_elsewhere_and_images_that_are_missing(dataset, small):
    (dataset / "images").rename(dataset / "photos")
    with pytest.raises(DataError, match=r"images of the model, e\.g\. 0000\.png, are not in .*give \?images=FOLDER"):
        SPEC.open(str(dataset), DataConfig())
    assert len(SPEC.open(f"{dataset}?images=photos", DataConfig())) == 4
    (dataset / "photos").rename(dataset / "images")
    (dataset / "images" / "0002.png").unlink()
    with pytest.raises(DataError, match=r"0002\.png: no such image, but in the model"):
        SPEC.open(str(dataset), DataConfig())
    assert list(SPEC.open(str(dataset), DataConfig(skip_bad=True)).bad) == [2]
    write_image(dataset / "images" / "more.png", small[0][0])
    assert any("1 images in" in n for n in SPEC.open(str(dataset), DataConfig(skip_bad=True)).notes)


def test_damaged_models_and_unknown_cameras(tmp_path, small):
    root = colmap(tmp_path / "m", small, binary=False)
    cameras = root / "sparse" / "0" / "cameras.txt"
    text = cameras.read_text()
    cameras.write_text(text.replace("PINHOLE", "FOV").rstrip() + " 0.1\n")
    with pytest.raises(DataError, match=r"camera model 'FOV' is not one of .*undistort the images"):
        SPEC.open(str(root), DataConfig())
    root = colmap(tmp_path / "n", small)
    images = root / "sparse" / "0" / "images.bin"
    images.write_bytes(images.read_bytes()[:40])
    with pytest.raises(DataError, match=r"sparse/0: is not a COLMAP model that can be read"):
        SPEC.open(str(root), DataConfig())


def test_real_model_of_a_facade(shared_data):
    reader = SPEC.open(str(shared_data / "gtsfm_lund_door"), DataConfig())
    assert (len(reader), reader.key(0)) == (6, "DSC_0001.JPG")
    camera = reader[0].camera
    assert (camera.model, camera.width, camera.height) == ("SIMPLE_RADIAL", 1296, 1936)
    assert camera.params == pytest.approx((2435.38, 647.5, 967.5, -0.0336422))
    tracks = reader.tracks()
    errors = []
    for i in range(6):
        mine = tracks.frame == i
        cam = transform(invert(reader.truth(i).T_world_cam), tracks.points_world[tracks.point[mine]])
        errors.append(np.linalg.norm(reader.camera(i).project(cam) - tracks.uv_px[mine], axis=1))
    # pycolmap reports 0.355 px; a half-pixel slip would add 0.7.
    assert np.concatenate(errors).mean() == pytest.approx(0.355, abs=0.02)
