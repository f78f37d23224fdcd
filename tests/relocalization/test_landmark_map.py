# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from simulated_map import CAMERA, CHANNELS, Room

from relocalization.describe import Describer
from relocalization.descriptor_storage import dequantize, quantize
from relocalization.fit_config import FitConfig
from relocalization.landmark_map import FIELDS, INDEX, OBSERVATIONS, LandmarkMap, Lens
from vision3d.errors import DataError
from vision3d.geometry.cameras import Camera
from vision3d.voxels.marching import Marching


@pytest.fixture(scope="module")
def made() -> LandmarkMap:
    """A map with everything that can be in one."""
    built = Room.build(per_wall=30, per_side=4).landmark_map(FitConfig(marching=Marching(step=0.2)))
    fitted = Camera("OPENCV", CAMERA.width, CAMERA.height, (*CAMERA.params, -0.03, 0.0, 0.0, 0.0))
    return replace(built, lens=Lens(CAMERA, fitted), facts={"ridge": 0.3, "note": "äöü"})


@pytest.fixture
def folder(made: LandmarkMap, tmp_path: Path) -> Path:
    made.save(tmp_path)
    return tmp_path


def test_what_is_loaded_is_what_was_saved(made: LandmarkMap, folder: Path) -> None:
    again = LandmarkMap.load(folder)
    assert len(again) == len(made) and again.channels == CHANNELS
    assert again.points.tobytes() == made.points.tobytes()
    assert again.descriptors.dtype == np.float16 and np.array_equal(
        again.descriptors, dequantize(*quantize(made.descriptors))
    )
    for name in ("start", "image", "keypoint"):
        assert np.array_equal(getattr(again.tracks, name), getattr(made.tracks, name))
    assert np.abs(again.tracks.uv_px - made.tracks.uv_px).max() < 1e-4, "pixels are kept in float32"
    assert np.allclose(again.covariance, made.covariance, rtol=1e-6)
    for name in ("centers", "half_sizes", "density", "values"):
        mine, theirs = getattr(again.grids, name), getattr(made.grids, name)
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
    assert again.images.names == made.images.names and again.images.cameras == made.images.cameras
    assert again.images.T_world_cam.tobytes() == made.images.T_world_cam.tobytes()
    for name in ("extractor", "feature_name", "marching", "lens", "facts"):
        assert getattr(again, name) == getattr(made, name), name
    assert set(again.retrieval) == set(made.retrieval)
    assert all(again.retrieval[k].tobytes() == np.ascontiguousarray(v).tobytes() for k, v in made.retrieval.items())


def test_saving_again_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    LandmarkMap.load(folder).save(second)
    for name in (FIELDS, OBSERVATIONS, INDEX):
        assert (second / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("axes", ["world", "view"])
@pytest.mark.parametrize("method", ["ridge", "polish"])
def test_a_stored_field_renders_as_before(axes: str, method: str, tmp_path: Path) -> None:
    """Turned boxes and densities of their own are part of the map."""
    fit = FitConfig(axes=axes, method=method, steps=3)  # type: ignore[arg-type]
    made = Room.build(per_wall=20, per_side=4).landmark_map(fit)
    made.save(tmp_path)
    index = np.arange(len(made))
    center = np.array([0.3, 0.1, -0.2])
    looks = []
    for landmarks in (made, LandmarkMap.load(tmp_path)):
        describer = Describer(landmarks, "voxel", 180.0)
        looks.append(describer.appearance(center, index, describer.viewpoint(center)).descriptors)
    assert torch.equal(*looks)


def test_bytes_per_landmark_are_those_on_disk(made: LandmarkMap, folder: Path) -> None:
    sizes = made.bytes_per_landmark(folder)
    assert sizes[FIELDS] * len(made) == pytest.approx((folder / FIELDS).stat().st_size)
    assert sizes[FIELDS] > 27 * CHANNELS * 2


@pytest.mark.parametrize("name", [FIELDS, OBSERVATIONS, INDEX])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError) as error:
        LandmarkMap.load(folder)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_foreign_or_absent_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"\xff\xd8")
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=FIELDS) as error:
            LandmarkMap.load(place)
        assert "\n" not in str(error.value)


def drop_array(name: str, key: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        arrays = load_file(folder / name)
        del arrays[key]
        save_file(arrays, folder / name)

    return spoil


def cut(name: str, share: float) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(share * len(data))])

    return spoil


def shorten(name: str, key: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        arrays = load_file(folder / name)
        arrays[key] = np.ascontiguousarray(arrays[key][:-1])
        save_file(arrays, folder / name)

    return spoil


def edit_index(**changes: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        data = json.loads((folder / INDEX).read_text())
        (folder / INDEX).write_text(json.dumps(data | changes))

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        cut(FIELDS, 0.5),
        cut(FIELDS, 0.0),
        cut(OBSERVATIONS, 0.99),
        cut(INDEX, 0.5),
        drop_array(FIELDS, "field.nodes"),
        drop_array(OBSERVATIONS, "descriptors"),
        shorten(FIELDS, "field.nodes"),
        shorten(FIELDS, "covariance"),
        shorten(OBSERVATIONS, "start"),
        shorten(OBSERVATIONS, "image"),
        shorten(OBSERVATIONS, "descriptors"),
        edit_index(schema=99),
        edit_index(images=[]),
        edit_index(images=[{"name": "x"}]),
        edit_index(marching={"colour": 1}),
        lambda folder: (folder / INDEX).write_bytes(b"\x80\x81"),
        lambda folder: (folder / INDEX).write_text("[1, 2]"),
    ],
    ids=lambda spoil: spoil.__qualname__.split(".")[0].strip("<>"),
)
def test_a_damaged_map_is_refused_in_one_line(spoil: Callable[[Path], object], folder: Path) -> None:
    spoil(folder)
    with pytest.raises(DataError) as error:
        LandmarkMap.load(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
