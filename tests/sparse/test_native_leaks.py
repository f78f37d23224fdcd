# SPDX-License-Identifier: Apache-2.0
"""Memory: nothing is kept from one pass to the next, maps die with their tensors, and row offsets need 64 bits."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref

import pytest
import torch
from torch import Tensor

from vision3d import sparse
from vision3d.sparse import KernelMap

pytest.importorskip("vision3d.sparse._native")

from vision3d.sparse.backends import native_conv, native_reduce

#: One pass makes maps of some 60 kB; a map kept per pass would show as 60 MB, a forgotten array of 100 bytes as 100 kB.
PROGRAM = """
import ctypes, gc, json, os, sys, warnings
import torch
from vision3d import sparse

torch.manual_seed(0)
points = torch.rand(600, 3) * 6
layers = [sparse.SubMConv3d(3, 8, 3), sparse.SparseConv3d(8, 8, 3, 2, 1), sparse.SparseInverseConv3d(8, 4, 3, 2, 1),
          sparse.SubMConv3d(4, 4, 3, groups=4), sparse.SparseInstanceNorm(4)]

def one_pass():
    x, index = sparse.voxelize(points, None, 0.5)
    x = x.with_sorted(x.sorted_feats.clone().requires_grad_())
    y = x
    for layer in layers:
        y = layer(y)
    pooled = sparse.functional.max_pool(y, 2)
    (pooled.feats.sum() + sparse.functional.global_pool(y).sum()).backward()
    sparse.devoxelize(y, points)
    for bad in (x.coords.repeat(2, 1), x.coords.double()):
        try:
            sparse.SparseTensor(bad, torch.zeros(len(bad), 1))
        except (TypeError, ValueError):
            pass
    for layer in layers:
        layer.zero_grad()

class Mallinfo(ctypes.Structure):
    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]

def figures():
    gc.collect()
    found = {"blocks": sys.getallocatedblocks()}
    with open("/proc/self/statm") as statm:
        found["rss"] = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return found
    mallinfo.restype = Mallinfo
    info = mallinfo()
    return found | {"malloc": info.uordblks + info.hblkhd}

for _ in range(200):
    one_pass()
before = figures()
for _ in range(1000):
    one_pass()
after = figures()
print(json.dumps({name: after[name] - before[name] for name in before}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_thousand_passes_leave_nothing_behind() -> None:
    """After 200 passes to warm up: below 2 MiB of resident memory, 64 bytes of malloc and one object per pass."""
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    growth = json.loads(found.stdout)
    assert growth["rss"] < 2 << 20, growth
    assert growth.get("malloc", 0) < 64 * 1000, growth
    assert growth["blocks"] < 1000, growth


def test_maps_die_with_their_tensors() -> None:
    """Voxels, a strided child, a prescribed set, the graph of a backward pass: the maps of all of them."""
    points = torch.rand(300, 3, generator=torch.Generator().manual_seed(1)) * 5
    x = sparse.voxelize(points, None, 0.5).tensor
    x.requires_grad_()
    down = sparse.SparseConv3d(3, 4, 3, 2, 1)(sparse.SubMConv3d(3, 3, 3)(x))
    up = sparse.SparseInverseConv3d(4, 4, 3, 2, 1)(down)
    prescribed = sparse.SparseConv3d(4, 4, 3, 1, 1)(up, sites=x)
    loss = sparse.functional.avg_pool(prescribed, 2).feats.sum()
    loss.backward()
    maps = [weakref.ref(m) for sites in (x.sites, down.sites) for m in sites.cached_maps()]
    sites = [weakref.ref(t.sites) for t in (x, down)]
    assert len(maps) >= 3
    del x, down, up, prescribed, loss
    gc.collect()
    assert [r for r in (*maps, *sites) if r() is not None] == []


def test_errors_keep_nothing_alive() -> None:
    """An exception from inside the compiled module lets go of the arrays it was given."""
    rows = torch.tensor([[0, 1], [0, 1]], dtype=torch.int32)
    order = torch.tensor([0, 7])
    held = [weakref.ref(rows), weakref.ref(order)]
    before = sys.getrefcount(rows), sys.getrefcount(order)
    for _ in range(50):
        with pytest.raises(ValueError, match="coords rows 0 and 1 are both"):
            sparse.SparseTensor(rows, torch.zeros(2, 1))
        with pytest.raises(IndexError, match="order is out of range"):
            native_reduce.segment_reduce(torch.zeros(2, 1), order, torch.tensor([0, 2]), "sum")
    assert (sys.getrefcount(rows), sys.getrefcount(order)) == before
    del rows, order
    gc.collect()
    assert [r() for r in held] == [None, None]


CHANNELS = 64
FAR_ROWS = 2**31 // CHANNELS  # element offsets of rows from here on do not fit 32 bits


@pytest.fixture
def far() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features whose elements number more than 2^31, of which only three rows are ever touched: their memory is never
    really there. Rows near the start, around 2^31 and at the end; their values; one weight; 8.6 GB are reserved."""
    rows = torch.tensor([3, FAR_ROWS, FAR_ROWS + 69])
    try:
        feats = torch.empty(FAR_ROWS + 70, CHANNELS)
    except RuntimeError as error:
        pytest.skip(f"8.6 GB of address space cannot be reserved: {error}")
    generator = torch.Generator().manual_seed(5)
    values = torch.randn(3, CHANNELS, generator=generator)
    feats[rows] = values
    return feats, rows, values, torch.randn(1, CHANNELS, 16, generator=generator)


def far_map(rows: Tensor, n: int) -> KernelMap:
    """Output row o reads input row ``rows[o]``."""
    edges = torch.arange((n + 63) // 64 + 1) * 64
    block_in = torch.searchsorted(rows, edges).int()[None]
    small = torch.arange(3, dtype=torch.int32)
    ptr, block_out = torch.tensor([0, 3]), torch.tensor([[0, 3]], dtype=torch.int32)
    return KernelMap(rows.int(), small, ptr, block_in, block_out, n, 3, (1, 1, 1), False)


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="relies on memory that is given when it is touched; reads /proc")
def test_more_than_two_to_the_31_elements(far: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    feats, rows, values, weight = far
    before = resident()
    m = far_map(rows, len(feats))
    out = native_conv.conv(feats, weight, None, m)
    torch.testing.assert_close(out, values @ weight[0])
    depthwise = native_conv.conv(feats, weight[:, :1, :1].expand(1, 1, CHANNELS).contiguous(), None, m, groups=CHANNELS)
    torch.testing.assert_close(depthwise, values * weight[0, 0, 0])
    for mode in ("max", "sum"):
        assert torch.equal(native_reduce.pool(feats, m, mode), values)
    ptr = torch.tensor([0, 2, 3])
    reduced = native_reduce.segment_reduce(feats, rows, ptr, "sum")
    torch.testing.assert_close(reduced, torch.stack([values[0] + values[1], values[2]]))
    assert torch.equal(native_reduce.segment_reduce(feats, rows, ptr, "max")[0], values[:2].amax(0))
    assert resident() - before < 1 << 30


@pytest.mark.skipif(sys.platform != "linux", reason="relies on memory that is given when it is touched; reads /proc")
def test_weight_gradient_over_more_than_two_to_the_31_elements(far: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """With the large tensor on either side."""
    feats, rows, values, weight = far
    before = resident()
    m = far_map(rows, len(feats))
    few = torch.randn(3, 16, generator=torch.Generator().manual_seed(6))

    def gradient(x: Tensor, grad: Tensor, kernel_map: KernelMap, groups: int = 1) -> Tensor:
        tables = (
            kernel_map.pair_in,
            kernel_map.pair_out,
            kernel_map.list_ptr,
            kernel_map.block_in,
            kernel_map.block_out,
        )
        found: Tensor = native_conv.gconv_grad(x, grad, *tables, 1, False, groups)
        return found

    torch.testing.assert_close(gradient(feats, few, m)[0], values.t() @ few)
    torch.testing.assert_close(gradient(few, feats, m.transposed())[0], few.t() @ values)
    torch.testing.assert_close(gradient(feats, values, m, CHANNELS)[0, 0], (values * values).sum(0))
    assert resident() - before < 1 << 30
