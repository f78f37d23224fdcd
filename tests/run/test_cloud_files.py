# SPDX-License-Identifier: Apache-2.0
"""Cloud views on disk: what is written comes back, thinned alike each time, and anything else is a DataError."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vision3d.errors import DataError
from vision3d.run.arrays import read_arrays, write_arrays
from vision3d.run.cloud_files import MAX_POINTS, read_cloud_view, write_cloud_view
from vision3d.types import CloudLayer, CloudView


def view(count: int = 50) -> CloudView:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(count, 3)).astype(np.float32)
    colors = rng.integers(0, 256, (count, 3), dtype=np.uint8)
    layers = (
        CloudLayer("first scan", points, np.array([255, 0, 9], np.uint8)),
        CloudLayer("geänderte <b>Punkte</b>", points + 1, colors),
        CloudLayer("nothing", points[:0], colors[:0]),
    )
    return CloudView("pair 000002 → t+1", layers, np.array([0.0, 0.0, 1.0]))


def assert_equal(a: CloudView, b: CloudView) -> None:
    assert (a.title, [layer.name for layer in a.layers]) == (b.title, [layer.name for layer in b.layers])
    np.testing.assert_array_equal(a.up, b.up)
    for one, other in zip(a.layers, b.layers, strict=True):
        assert (one.points.dtype, one.colors.dtype) == (np.float32, np.uint8)
        np.testing.assert_array_equal(one.points, other.points)
        np.testing.assert_array_equal(one.colors, other.colors)


def test_a_view_comes_back(tmp_path: Path) -> None:
    write_cloud_view(tmp_path / "a.npz", view())
    assert_equal(read_cloud_view(tmp_path / "a.npz"), view())
    empty = CloudView("", (), np.array([0.0, 1.0, 0.0]))
    write_cloud_view(tmp_path / "b.npz", empty)
    assert_equal(read_cloud_view(tmp_path / "b.npz"), empty)


def test_large_layers_are_thinned_alike_each_time_and_no_random_number_is_taken(tmp_path: Path) -> None:
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr] # noqa: NPY002
    large = view(MAX_POINTS + 1000)
    for name in ("a.npz", "b.npz"):
        write_cloud_view(tmp_path / name, large)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # type: ignore[index] # noqa: NPY002
    thin = read_cloud_view(tmp_path / "a.npz").layers[1]
    assert len(thin.points) == len(thin.colors) == MAX_POINTS
    # every point kept is one of the layer's, with its own colour, and the order stays
    rows = {row.tobytes(): i for i, row in enumerate(large.layers[1].points)}
    kept = np.array([rows[row.tobytes()] for row in thin.points])
    assert (np.diff(kept) > 0).all()
    np.testing.assert_array_equal(thin.colors, large.layers[1].colors[kept])


def test_points_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    layer = view().layers[1]
    points = layer.points.copy()
    points[3, 1], points[7, 0] = np.nan, np.inf
    write_cloud_view(tmp_path / "a.npz", CloudView("", (replace(layer, points=points),), np.array([0.0, 0.0, 1.0])))
    back = read_cloud_view(tmp_path / "a.npz").layers[0]
    np.testing.assert_array_equal(back.points, np.delete(points, [3, 7], axis=0))
    np.testing.assert_array_equal(back.colors, np.delete(layer.colors, [3, 7], axis=0))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"points": np.zeros((4, 2), np.float32)}, r"points of layer 'a' must be \(N, 3\), got \(4, 2\)"),
        ({"colors": np.zeros((3, 3), np.uint8)}, r"colors of layer 'a' must be \(N, 3\) or \(3,\) uint8"),
        ({"colors": np.zeros(3)}, r"got \(3,\) float64"),
    ],
)
def test_a_view_of_other_shapes_is_refused(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    layer = CloudLayer("a", np.zeros((4, 3), np.float32), np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match=problem):
        write_cloud_view(tmp_path / "a.npz", CloudView("", (replace(layer, **change),), np.array([0.0, 0.0, 1.0])))
    with pytest.raises(ValueError, match="up must be three finite numbers"):
        write_cloud_view(tmp_path / "a.npz", CloudView("", (layer,), np.array([0.0, 0.0, np.nan])))


def drop(arrays: dict[str, Any]) -> None:
    del arrays["layer001/name"]


def gap(arrays: dict[str, Any]) -> None:
    for part in ("name", "points", "colors"):
        del arrays[f"layer000/{part}"]


CHANGES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (drop, "it lacks 'name'"),
    (gap, "it lacks 0"),
    (lambda a: a.pop("up"), "it lacks 'up'"),
    (lambda a: a.update(up=np.zeros(2)), "up must be three finite numbers"),
    (lambda a: a.update(title=np.array([255], np.uint8)), "can't decode byte"),
    (lambda a: a.update(title=np.zeros(3)), "a name must be bytes"),
    (lambda a: a.update(extra=np.zeros(3)), "unexpected array extra"),
    (lambda a: a.update({"layer001/points": np.zeros((50, 3))}), "must be float32"),
    (lambda a: a.update({"layer001/points": np.full((50, 3), np.nan, np.float32)}), "must be finite"),
    (lambda a: a.update({"layer001/points": np.zeros((50, 4), np.float32)}), r"must be \(N, 3\)"),
    (lambda a: a.update({"layer001/colors": np.zeros((49, 3), np.uint8)}), r"colors of layer"),
]


@pytest.mark.parametrize(("change", "problem"), CHANGES)
def test_other_arrays_are_no_view(tmp_path: Path, change: Callable[[dict[str, Any]], object], problem: str) -> None:
    path = tmp_path / "a.npz"
    write_cloud_view(path, view())
    arrays = read_arrays(path)
    change(arrays)
    write_arrays(path, arrays)
    with pytest.raises(DataError, match=rf"a\.npz: is no cloud view \(.*{problem}"):
        read_cloud_view(path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"a\.npz: is damaged"):
        read_cloud_view(tmp_path / "a.npz")
