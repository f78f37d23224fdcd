# SPDX-License-Identifier: Apache-2.0
"""Threads: same bits for any number of them, under load, from several Python threads, after fork, in DataLoaders."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vision3d import sparse
from vision3d.sparse import SparseTensor

_native = pytest.importorskip("vision3d.sparse._native")

from vision3d.sparse.backends import native_conv, native_maps, native_reduce  # noqa: E402  (needs the compiled module)

_SEEDING = threading.Lock()


def cloud(rows: int = 40_000, seed: int = 0) -> Tensor:
    """Shuffled voxels of a bumpy surface in three samples; enough rows for every stage to be shared out."""
    generator = torch.Generator().manual_seed(seed)
    plane = torch.randint(0, 180, (rows, 2), generator=generator)
    height = (plane[:, :1] // 9 + plane[:, 1:] // 7) % 5
    batch = torch.randint(0, 3, (rows, 1), generator=generator)
    coords = torch.unique(torch.cat([batch, height, plane], 1), dim=0).int()
    return coords[torch.randperm(len(coords), generator=generator)]


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def maps(coords: Tensor) -> list[Tensor]:
    """Sorting, uniques, look-ups and every kind of map."""
    found = native_maps.sort_coords(coords)
    unique = native_maps.unique_coords(coords // torch.tensor([1, 2, 2, 2], dtype=torch.int32))
    three, ones, twos = (3, 3, 3), (1, 1, 1), (2, 2, 2)
    subm = native_maps.subm_map(found.keys, found.layout, three, ones)
    wide = native_maps.subm_map(found.keys, found.layout, (1, 5, 5), ones)
    down = native_maps.strided_coords(found.coords, three, twos, ones, ones, None)
    up = native_maps.transposed_coords(found.coords, twos, twos, (0, 0, 0), ones, None)
    pairs = native_maps.pair_map(found.coords, found.keys, found.layout, down, three, twos, ones, ones)
    rows = native_maps.lookup(found.keys, found.layout, coords)
    tables = [t for m in (subm, wide, pairs) for t in (m.pair_in, m.pair_out, m.list_ptr, m.block_in, m.block_out)]
    return [*found, *unique, down, up, rows, *tables]


def layer_results(coords: Tensor, make: Callable[[], torch.nn.Module], channels: int) -> list[Tensor]:
    """Output, input gradient and parameter gradients."""
    generator = torch.Generator().manual_seed(7)
    with _SEEDING:  # torch's generator is one for all threads
        torch.manual_seed(11)
        layer = make()
    feats = torch.randn(len(coords), channels, generator=generator).requires_grad_()
    out = layer(SparseTensor(coords, feats)).feats
    out.backward(torch.randn(out.shape, generator=generator))
    assert feats.grad is not None
    return [out, feats.grad, *(p.grad for p in layer.parameters() if p.grad is not None)]


LAYERS: dict[str, Callable[[], torch.nn.Module]] = {
    "subm": lambda: sparse.SubMConv3d(16, 16, 3),
    "odd channels": lambda: sparse.SubMConv3d(16, 19, 3, bias=False),
    "depthwise": lambda: sparse.SubMConv3d(16, 16, 3, groups=16),
    "grouped": lambda: sparse.SubMConv3d(16, 32, 3, groups=4),
    "strided": lambda: sparse.SparseConv3d(16, 16, 3, 2, 1),
    "transposed": lambda: sparse.SparseConvTranspose3d(16, 8, 2, 2),
    "max pool": lambda: sparse.SparseMaxPool3d(3, 2, 1),
    "average pool": lambda: sparse.SparseAvgPool3d(2),
    "instance norm": lambda: sparse.SparseInstanceNorm(16, affine=True),
}


def reductions(coords: Tensor) -> list[Tensor]:
    """Segment reductions and their gradients, over many short and a few long segments."""
    results = []
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(len(coords), 16, generator=generator)
    for index, segments in ((coords[:, 2].long() * 180 + coords[:, 3].long(), 180 * 180), (coords[:, 0].long(), 3)):
        for mode in ("sum", "mean", "max", "first"):
            feats = values.clone().requires_grad_()
            out = sparse.segment_reduce(feats, index, mode, n_segments=segments)
            out.square().sum().backward()
            assert feats.grad is not None
            results += [out, feats.grad]
    return results


WORK: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "maps": maps,
    "reductions": reductions,
    **{name: lambda coords, make=make: layer_results(coords, make, 16) for name, make in LAYERS.items()},
}


def assert_equal_bits(found: list[Tensor], wanted: list[Tensor]) -> None:
    assert len(found) == len(wanted)
    for index, (mine, theirs) in enumerate(zip(found, wanted)):
        assert torch.equal(mine, theirs), f"result {index} of {len(wanted)} differs"


@pytest.mark.parametrize("work", WORK)
def test_same_bits_for_any_number_of_threads(work: str) -> None:
    coords = cloud()
    with threads(1):
        wanted = WORK[work](coords)
    for count in (2, 3, 4):
        with threads(count):
            assert_equal_bits(WORK[work](coords), wanted)


@pytest.fixture
def load() -> Iterator[None]:
    """Two processes that take time from all others."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for burner in burners:
        burner.kill()
        burner.wait()


def test_same_bits_under_load(load: None) -> None:
    """Twenty repeats with three threads, while others take the processors away at any moment."""
    few, many = cloud(6000), cloud()
    work = {"maps": many, "subm": few, "depthwise": few, "strided": few, "max pool": few, "reductions": few}
    with threads(1):
        wanted = {name: WORK[name](coords) for name, coords in work.items()}
    with threads(3):
        for _ in range(20):
            for name, coords in work.items():
                assert_equal_bits(WORK[name](coords), wanted[name])


def test_calls_from_several_python_threads() -> None:
    """Calls take turns in the pool of threads; each gets its own result, and an error reaches its own caller."""
    clouds = [cloud(6000, seed) for seed in range(4)]
    names = ("maps", "subm", "strided", "reductions")
    wanted = [{name: WORK[name](coords) for name in names} for coords in clouds]

    def run(task: int) -> None:
        coords = clouds[task % 4]
        for name in names:
            assert_equal_bits(WORK[name](coords), wanted[task % 4][name])
        with pytest.raises(ValueError, match="are both"):
            native_maps.sort_coords(torch.cat([coords, coords]))

    with threads(3), ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(run, task) for task in range(12)]:
            future.result()


def plain_calls(coords: Tensor, count: int) -> list[Tensor]:
    """Calls of the compiled module alone, with its own threads: torch's OpenMP must not be used after fork."""
    sorted_coords, order, keys, layout = _native.sort_coords(coords, count)
    tables = _native.subm_map(keys, layout, [3, 3, 3], [1, 1, 1], count)
    feats = torch.arange(len(coords) * 4, dtype=torch.float32).view(-1, 4)
    out = torch.empty(len(coords), 8)
    _native.conv(feats, torch.full((27, 4, 8), 0.01), None, *tables, True, 1, False, False, out, count)
    return [sorted_coords, order, keys, *tables, out]


def _child(coords: Tensor, queue: multiprocessing.SimpleQueue[list[list[float]]]) -> None:
    queue.put([[float(t.double().sum()), float(t.numel())] for t in plain_calls(coords, 3)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_fork_while_the_pool_is_at_work() -> None:
    """A child has none of its parent's threads; it must make its own, whatever the parent was doing."""
    coords = cloud(20_000)
    wanted = [[float(t.double().sum()), float(t.numel())] for t in plain_calls(coords, 3)]
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            _native.sort_coords(coords, 3)

    worker = threading.Thread(target=busy)
    worker.start()
    try:
        context = multiprocessing.get_context("fork")
        for _ in range(5):
            queue = context.SimpleQueue()
            child = context.Process(target=_child, args=(coords, queue))
            child.start()
            child.join(30)
            assert child.exitcode == 0, "the child hangs" if child.exitcode is None else child.exitcode
            assert queue.get() == wanted
    finally:
        stop.set()
        worker.join()
    assert_equal_bits(plain_calls(coords, 3), plain_calls(coords, 1))


class Voxels(Dataset[list[Tensor]]):
    """Voxelizes and convolves in the worker."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(index)
        x, rows = sparse.voxelize(torch.rand(500, 3, generator=generator) * 8, None, 0.5)
        torch.manual_seed(index)
        y = sparse.SparseConv3d(3, 8, 3, 2, 1)(sparse.SubMConv3d(3, 3, 3)(x))
        return [y.coords, y.feats.detach(), rows]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_data_loader_workers() -> None:
    """In workers that are forked while this process has a pool of threads."""
    with threads(3):
        plain_calls(cloud(20_000), 3)
        wanted = [Voxels()[index] for index in range(6)]
        loader = DataLoader(Voxels(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60)
        found = list(loader)
    for mine, theirs in zip(found, wanted, strict=True):
        assert_equal_bits(mine, theirs)


def test_the_number_of_threads_is_asked_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Recorder:
        def __getattr__(self, name: str) -> Callable[..., object]:
            function = getattr(_native, name)

            def call(*arguments: object) -> object:
                asked.append(arguments[-1])  # type: ignore[arg-type]
                return function(*arguments)

            return call

    for module in (native_conv, native_maps, native_reduce):
        monkeypatch.setattr(module, "_native", Recorder())
    coords = cloud(500)
    for count in (1, 4, 2):
        asked.clear()
        with threads(count):
            maps(coords)
            layer_results(coords, LAYERS["strided"], 16)
            layer_results(coords, LAYERS["max pool"], 16)
        assert len(asked) > 10
        assert set(asked) == {count}


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads in /proc")
@pytest.mark.parametrize("count", [1, 3])
def test_no_more_threads_than_asked_for(count: int) -> None:
    program = (
        "import os, torch; from vision3d.sparse import _native; "
        "coords = torch.arange(200_000).view(-1, 4).int() % 997; "
        "coords[:, 0] = 0; before = len(os.listdir('/proc/self/task')); "
        f"[_native.unique_coords(coords, n) for n in (1, {count}, {count}, 2 if {count} > 1 else 1)]; "
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(found.stdout) == count - 1


def test_any_number_of_threads_is_taken() -> None:
    """Nonsense counts as one, and more threads than there are tasks are not made."""
    coords = cloud(3000)
    wanted = plain_calls(coords, 1)
    for count in (0, -1, -(2**31), 2**31 - 1):
        assert_equal_bits(plain_calls(coords, count), wanted)
