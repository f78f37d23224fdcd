# SPDX-License-Identifier: Apache-2.0
"""A short run of the fuzzer (fuzz_native.py), and what it has found before."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vision3d import sparse

_native = pytest.importorskip("vision3d.sparse._native")

from vision3d.sparse.backends import native_conv  # noqa: E402  (needs the compiled module)

PROGRAM = Path(__file__).with_name("fuzz_native.py")


def test_two_thousand_calls() -> None:
    command = [sys.executable, str(PROGRAM), "--cases", "2000", "--seed", "5"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    total = json.loads(found.stdout.splitlines()[1])["total"]
    assert sum(total.values()) == 2000
    # Both sides are met: calls that work, and each kind of refusal.
    assert total["returned"] > 500
    assert total["ValueError"] > 300
    assert total["TypeError"] > 100
    assert total["IndexError"] > 10


def test_a_seed_repeats_its_calls() -> None:
    program = (
        "import json, sys, warnings; warnings.simplefilter('ignore'); "
        "sys.path.insert(0, sys.argv[1]); import fuzz_native; "
        "print(json.dumps([fuzz_native.run(8, 200), fuzz_native.run(8, 200), fuzz_native.run(9, 200)]))"
    )
    command = [sys.executable, "-c", program, str(PROGRAM.parent)]
    first, again, other = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert first == again
    assert first != other


def sites(ndim: int = 2, rows: int = 6) -> sparse.SparseTensor:
    coords = torch.arange(rows * (1 + ndim)).view(rows, 1 + ndim).int()
    coords[:, 0] = 0
    return sparse.SparseTensor(coords, torch.ones(rows, 2))


def weight_gradient(groups: int) -> torch.Tensor:
    m = sites().sites.subm_map((3, 3), (1, 1))
    tables = (m.pair_in, m.pair_out, m.list_ptr, m.block_in, m.block_out)
    found: torch.Tensor = native_conv.gconv_grad(torch.ones(6, 2), torch.ones(6, 2), *tables, 9, True, groups)
    return found


#: What the fuzzer once found to crash, overflow or end in an error of torch's.
FOUND = [
    (lambda: sparse.SubMConv2d(2, 2, 3, dilation=2**40), r"SubMConv2d: dilation must be below 2\^31 on every axis"),
    (lambda: sparse.SparseMaxPool2d(2, 2**31)(sites()), r"stride must be below 2\^31 on every axis, not 2147483648"),
    (
        lambda: sparse.segment_reduce(torch.ones(0, 2), torch.zeros(0).long(), n_segments=-1),
        "n_segments must not be negative",
    ),
    (
        lambda: sparse.SparseTensor(sites().coords, sites().feats, (2**31, 99)),
        r"spatial_shape must be from 0 to 2\^31 - 1",
    ),
    (lambda: weight_gradient(groups=0), "groups must be at least 1, not 0"),
    (lambda: sparse.SparseTensor(sites().coords[:0], sites().feats[:0], -1), "spatial_shape must be from 0"),
]


@pytest.mark.parametrize(("call", "message"), FOUND)
def test_found_errors_name_their_argument(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_union_of_two_dtypes() -> None:
    x, other = sites(), sites(rows=9).double()
    assert x.union(other).dtype == torch.float64
    assert x.union(other).feats[:6].eq(2).all()


KEYS = torch.tensor([0, 1])
BROKEN = [
    (torch.tensor([2**63 - 2, 2**63 - 1]), [[0, 0], [1, 1]], "keys do not belong to the layout"),
    (torch.tensor([0, 2**63 - 1]), [[0, 0], [2**63 - 1, 1]], "keys do not belong to the layout"),
    (KEYS, [[0, 0], [9, 3]], "the last multiplier must be 1"),
    (KEYS, [[0, 0], [1, 2]], "multipliers must be positive and must not ascend"),
    (KEYS, [[0, 2**40], [9, 1]], "a minimum is not an int32 value"),
    (KEYS.flip(0), [[0, 0], [9, 1]], "must ascend strictly"),
    (KEYS - 5, [[0, 0], [9, 1]], "must not be negative"),
]


@pytest.mark.parametrize(("keys", "layout", "message"), BROKEN)
def test_keys_that_no_cloud_has(keys: torch.Tensor, layout: list[list[int]], message: str) -> None:
    """Sums of keys and steps must not overflow, whatever the compiled module is handed."""
    box = torch.tensor(layout)
    site = torch.tensor([[0, 0], [1, 1]], dtype=torch.int32)
    with pytest.raises(ValueError, match=message):
        _native.subm_map(keys, box, [3], [1], 1)
    with pytest.raises(ValueError, match=message):
        _native.pair_map(keys, box, site, [3], [1], [0], [1], 1)


def test_sizes_that_no_array_has() -> None:
    nothing = torch.empty(0, 0)
    tables = _native.subm_map(torch.empty(0).long(), torch.tensor([[0, 0], [1, 1]]), [3], [1], 1)
    # No channels are divisible by any number of groups; there is nothing to loop over all the same.
    _native.conv_grad(nothing, nothing, *tables, True, 2**62, torch.empty(3, 0, 0), 1)
    with pytest.raises(ValueError, match=r"more than 2\^20 offsets"):
        _native.output_sites(torch.zeros(1, 3).int(), [2**11, 2**11], [1, 1], [0, 0], [1, 1], None, False, 1)
