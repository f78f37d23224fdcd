# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vision3d.sparse.serialize import hilbert_key, morton_key

Key = Callable[..., Tensor]
BOTH = pytest.mark.parametrize("key", [morton_key, hilbert_key])


def cube(ndim: int, depth: int) -> Tensor:
    """Every cell of a cube of side 2^depth, batch first."""
    axis = torch.arange(2**depth)
    cells = torch.cartesian_prod(*[axis] * ndim)
    return torch.cat([torch.zeros(len(cells), 1, dtype=torch.int64), cells], 1)


def morton_by_strings(row: list[int], depth: int) -> int:
    digits = [format(value, f"0{depth}b") for value in row[1:]]
    return int(format(row[0], "b") + "".join("".join(bits) for bits in zip(*digits)), 2)


def hilbert_by_quadrants(depth: int, x: int, y: int) -> int:
    """The textbook recursion in the plane: quadrant by quadrant, each turned so that the pieces join."""
    if depth == 0:
        return 0
    half = 1 << (depth - 1)
    right, up = x >= half, y >= half
    quadrant = {(False, False): 0, (False, True): 1, (True, True): 2, (True, False): 3}[right, up]
    x, y = x % half, y % half
    if quadrant == 0:
        x, y = y, x
    elif quadrant == 3:
        x, y = half - 1 - y, half - 1 - x
    return quadrant * half * half + hilbert_by_quadrants(depth - 1, x, y)


@BOTH
@pytest.mark.parametrize(("ndim", "depth"), [(2, 1), (2, 5), (3, 1), (3, 4)])
def test_a_full_cube_is_numbered_without_gaps(key: Key, ndim: int, depth: int) -> None:
    keys = key(cube(ndim, depth), depth)
    assert keys.dtype == torch.int64
    assert torch.equal(keys.sort()[0], torch.arange(2 ** (ndim * depth)))


@pytest.mark.parametrize(("ndim", "depth"), [(2, 2), (2, 6), (3, 2), (3, 4)])
def test_hilbert_moves_one_step_at_a_time(ndim: int, depth: int) -> None:
    cells = cube(ndim, depth)
    path = cells[hilbert_key(cells, depth).argsort()]
    assert bool((path.diff(dim=0).abs().sum(1) == 1).all())


@BOTH
@pytest.mark.parametrize("ndim", [2, 3])
def test_coarser_cells_are_numbered_by_the_leading_bits(key: Key, ndim: int) -> None:
    cells = cube(ndim, 4)
    coarse = cells.clone()
    coarse[:, 1:] >>= 1
    assert torch.equal(key(cells, 4) >> ndim, key(coarse, 3))


def test_known_small_curves() -> None:
    square, octants = cube(2, 1), cube(3, 1)
    assert morton_key(square).tolist() == [0, 1, 2, 3]
    assert morton_key(octants).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    # (y, x): (0, 0), (0, 1), (1, 1), (1, 0).
    assert hilbert_key(square).tolist() == [0, 1, 3, 2]


@pytest.mark.parametrize("depth", [1, 2, 3, 6, 7])
def test_hilbert_in_the_plane_equals_the_textbook_recursion(depth: int) -> None:
    cells = cube(2, depth)
    expected = [hilbert_by_quadrants(depth, first, second) for _, first, second in cells.tolist()]
    mirrored = [hilbert_by_quadrants(depth, second, first) for _, first, second in cells.tolist()]
    keys = hilbert_key(cells, depth).tolist()
    assert keys in (expected, mirrored)


@pytest.mark.parametrize(("ndim", "depth"), [(2, 5), (2, 30), (2, 31), (3, 7), (3, 20), (3, 21)])
def test_morton_equals_interleaved_strings(ndim: int, depth: int) -> None:
    generator = torch.Generator().manual_seed(depth)
    rows = torch.randint(0, 2**depth, (40, 1 + ndim), generator=generator)
    rows[:2, 1:] = torch.tensor([[0], [2**depth - 1]])
    rows[:, 0] %= min(2 ** (63 - ndim * depth), 5)
    expected = [morton_by_strings(row, depth) for row in rows.tolist()]
    assert morton_key(rows, depth).tolist() == expected
    assert morton_key(rows.int(), depth).tolist() == expected


@pytest.mark.parametrize(("ndim", "depth"), [(2, 31), (3, 21)])
def test_hilbert_at_full_depth(ndim: int, depth: int) -> None:
    """Neighbours in a corner of the largest cube: still a path, and keys stay positive."""
    cells = cube(ndim, 3)
    cells[:, 1:] += 2**depth - 8
    keys = hilbert_key(cells, depth)
    assert bool((keys >= 0).all())
    assert keys.unique().numel() == len(cells)
    path = cells[keys.argsort()]
    assert bool((path.diff(dim=0).abs().sum(1) == 1).all())
    assert int(keys.amax() - keys.amin()) == len(cells) - 1


@BOTH
def test_samples_stay_apart_and_equal_each_other(key: Key) -> None:
    cells = cube(3, 2)
    other = cells.clone()
    other[:, 0] = 6
    keys = key(torch.cat([other, cells]), 4)
    assert int(keys[: len(cells)].amin()) > int(keys[len(cells) :].amax())
    assert torch.equal(keys[: len(cells)] - (6 << 12), keys[len(cells) :])


@BOTH
def test_depth_is_found_when_it_is_not_given(key: Key) -> None:
    rows = torch.tensor([[0, 5, 2, 0], [1, 1, 7, 3]])
    assert torch.equal(key(rows), key(rows, 3))
    assert key(torch.zeros((1, 4), dtype=torch.int32)).tolist() == [0]


@BOTH
def test_no_rows_no_keys(key: Key) -> None:
    assert key(torch.empty((0, 4), dtype=torch.int32)).shape == (0,)


@BOTH
@pytest.mark.parametrize(
    ("coords", "depth", "error", "message"),
    [
        (torch.tensor([[0, 1, 1], [0, -1, 2]]), None, ValueError, "coords row 1 is .0, -1, 2."),
        (torch.tensor([[0, 1, 1], [-3, 1, 2]]), None, ValueError, "coords row 1 is .-3, 1, 2."),
        (torch.tensor([[0, 1, 8]]), 3, ValueError, "depth 3 need coordinates from 0 to 7"),
        (torch.tensor([[0, 1, 1, 2**21]]), None, ValueError, "raise depth .at most 21"),
        (torch.tensor([[0, 0, 0], [2, 0, 0]]), 31, ValueError, "batch index 2 of row 1 does not fit beside 62 bits"),
        (torch.tensor([[1, 0, 0, 0]]), 21, ValueError, "batch index 1 of row 0"),
        (torch.tensor([[0, 0, 0]]), 32, ValueError, "depth must be from 1 to 31"),
        (torch.tensor([[0, 0, 0]]), 0, ValueError, "depth must be from 1 to 31"),
        (torch.tensor([[0, 0]]), 3, ValueError, "D = 2 or 3"),
        (torch.tensor([0, 0, 0]), 3, ValueError, "D = 2 or 3"),
        (torch.zeros(3, 3), 3, TypeError, "integer"),
    ],
)
def test_bad_input(key: Key, coords: Tensor, depth: int | None, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        key(coords, depth)
