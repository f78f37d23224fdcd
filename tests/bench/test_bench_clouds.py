# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest
import torch

from vision3d.bench import clouds
from vision3d.errors import UserError
from vision3d.sparse import SparseTensor


@pytest.mark.parametrize(
    ("make", "voxels", "pairs"),
    [
        (clouds.room, (105e3, 118e3), (9.5, 11.5)),
        (clouds.lidar_sweep, (85e3, 95e3), (5, 7)),
        (clouds.ball, (95e3, 110e3), (26, 27)),
    ],
)
def test_clouds_are_as_large_and_dense_as_they_say(make, voxels, pairs) -> None:  # type: ignore[no-untyped-def]
    coords = make()
    assert coords.dtype == torch.int32
    assert voxels[0] < len(coords) < voxels[1]
    kernel_map = SparseTensor(coords, torch.zeros(len(coords), 1)).sites.subm_map((3, 3, 3), (1, 1, 1))
    assert pairs[0] < kernel_map.n_pairs / len(coords) < pairs[1]
    assert torch.equal(make(), coords)


def test_rows_are_shuffled() -> None:
    coords = clouds.room(0.2)
    z = coords[:, 1].float()
    assert (z[1:] < z[:-1]).float().mean() > 0.2


@pytest.mark.parametrize(
    ("name", "columns"), [("a.bin", 4), ("a.pcd.bin", 5), ("scene0.bin", 6), ("a.npy", 3), ("a.npz", 3)]
)
def test_files_of_points(tmp_path: Path, name: str, columns: int) -> None:
    points = np.zeros((3, columns), np.float32)
    points[:, :3] = [[0.05, 0.15, 0.25], [0.06, 0.16, 0.26], [-0.05, 0.0, 0.0]]
    path = tmp_path / name
    if path.suffix == ".bin":
        points.tofile(path)
    elif path.suffix == ".npy":
        np.save(path, points)
    else:
        np.savez(path, pc=points)
    found = clouds.from_file(path, 0.1)
    assert sorted(map(tuple, found.tolist())) == [(0, 0, 0, -1), (0, 2, 1, 0)]


@pytest.mark.parametrize("content", [b"123", np.full((1, 4), np.nan, np.float32).tobytes()])
def test_bad_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.bin"):
        clouds.from_file(tmp_path / "x.bin", 0.1)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="are read from"):
        clouds.from_file(tmp_path / "x.ply", 0.1)
    with pytest.raises(UserError, match="cannot be read"):
        clouds.from_file(tmp_path / "x.bin", 0.1)
