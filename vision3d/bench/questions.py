# SPDX-License-Identifier: Apache-2.0
"""What ``vision3d bench sparse`` measures, one function per question; each returns rows of figures."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from vision3d.bench.memory import peak_extra_bytes
from vision3d.bench.peers import PEERS, Native, Peer
from vision3d.bench.timing import Case, Timing, take_turns
from vision3d.nn import SparseUNet
from vision3d.sparse import SparseConv3d, SparseInverseConv3d, SparseTensor, SubMConv3d
from vision3d.sparse.kernel_map import KernelMap

Row = dict[str, Any]
Layer = SubMConv3d | SparseConv3d | SparseInverseConv3d
CHANNELS = (16, 32, 64, 128)


def present(peers: tuple[Peer, ...] = PEERS) -> list[Peer]:
    """The engines that can be measured here."""
    return [peer for peer in peers if peer.missing() is None]


def subm3(cloud: str, coords: Tensor, channels: int, threads: int, turns: int) -> list[Row]:
    """Submanifold 3^3, forward and training step, every engine that is here, against ``torch.mm``."""
    flops = 2.0 * _map3(coords).n_pairs * channels * channels
    cases: dict[str, Case] = {}
    # spconv's CPU forward is racy with more than one thread: a time of a wrong result is no time.
    peers = [p for p in present() if threads == 1 or p.name != "spconv"]
    for peer in peers:
        actions = peer.subm3(coords, channels)
        cases[f"{peer.name}|forward"] = Case(actions.forward, flops)
        cases[f"{peer.name}|step"] = Case(actions.step, 3 * flops)
    found = take_turns(cases, threads, turns)
    return [_row("subm3", cloud, channels, threads, *_split(name), timing) for name, timing in found.items()]


def step_with_map(cloud: str, coords: Tensor, channels: int, turns: int) -> list[Row]:
    """A training step that starts from shuffled coordinates: kernel map, forward, both gradients; one thread."""
    cases = {}
    for peer in present():
        actions = peer.subm3(coords, channels)

        def run(build: Callable[[], object] = actions.build, step: Callable[[], object] = actions.step) -> None:
            build()
            step()

        cases[peer.name] = Case(run)
    found = take_turns(cases, 1, turns)
    return [_row("step with map", cloud, channels, 1, name, "step", timing) for name, timing in found.items()]


def maps(cloud: str, coords: Tensor, threads: int, turns: int) -> list[Row]:
    """Nanoseconds per voxel of a 3^3 kernel map, from shuffled and from sorted coordinates."""
    in_order = SparseTensor(coords, torch.empty(len(coords), 1)).sites.coords
    cases = {}
    for order, sites in (("shuffled", coords), ("sorted", in_order)):
        for peer in present():
            if threads == 1 or peer.name != "spconv":
                cases[f"{peer.name}|{order}"] = Case(peer.subm3(sites, 1).build)
    found = take_turns(cases, threads, turns)
    rows = [_row("map", cloud, 0, threads, *_split(name), timing) for name, timing in found.items()]
    for row in rows:
        row["ns_per_voxel"] = 1e6 * row["median_ms"] / len(coords)
    return rows


def strided(cloud: str, coords: Tensor, channels: int, threads: int, turns: int) -> list[Row]:
    """Strided k2s2 and k3s2 and the inverse of k2s2, forward and training step, against ``torch.mm``."""
    x = SparseTensor(coords, torch.randn(len(coords), channels, generator=torch.Generator().manual_seed(0)))
    down2 = SparseConv3d(channels, channels, 2, 2, bias=False)
    down3 = SparseConv3d(channels, channels, 3, 2, 1, bias=False)
    up2 = SparseInverseConv3d(channels, channels, 2, 2, bias=False)
    with torch.no_grad():
        coarse = down2(x).detach()
    cases: dict[str, Case] = {}
    for name, layer, start, parameters in (
        ("k2s2", down2, x, ()),
        ("k3s2", down3, x, ()),
        ("inverse k2s2", up2, coarse, (x,)),
    ):
        pairs = _pairs_of(layer, start, parameters)
        forward, step = _actions(layer, start, parameters)
        flops = 2.0 * pairs * channels * channels
        cases[f"{name}|forward"] = Case(forward, flops)
        cases[f"{name}|step"] = Case(step, 3 * flops)
    found = take_turns(cases, threads, turns)
    return [
        _row(name.split("|")[0], cloud, channels, threads, Native.name, name.split("|")[1], timing)
        for name, timing in found.items()
    ]


def first_layers(cloud: str, coords: Tensor, turns: int) -> list[Row]:
    """Layers with few input channels are bound by memory: milliseconds, one thread."""
    cases = {}
    for channels in (1, 3, 4, 8):
        layer = SubMConv3d(channels, 16, 3, bias=False)
        x = SparseTensor(coords, torch.randn(len(coords), channels, generator=torch.Generator().manual_seed(0)))
        forward, step = _actions(layer, x, ())
        flops = 2.0 * _pairs_of(layer, x, ()) * channels * 16
        cases[f"{channels}|forward"], cases[f"{channels}|step"] = Case(forward, flops), Case(step, 3 * flops)
    found = take_turns(cases, 1, turns)
    return [
        _row("first layer (to 16)", cloud, int(name.split("|")[0]), 1, Native.name, name.split("|")[1], timing)
        for name, timing in found.items()
    ]


def depthwise(cloud: str, coords: Tensor, channels: int, threads: int, turns: int) -> list[Row]:
    """Depthwise 3^3 against two limits at the rate of ``Tensor.copy_`` on features of this size, in turn.

    ``compulsory_share`` is the target's: input, output and map counted once each, as if the cache were as large as the
    cloud. ``share`` counts every pair's input row and every output row, which caches can serve: it may exceed one.
    """
    layer = SubMConv3d(channels, channels, 3, groups=channels, bias=False)
    x = SparseTensor(coords, torch.randn(len(coords), channels, generator=torch.Generator().manual_seed(0)))
    forward, step = _actions(layer, x, ())
    source, target = x.sorted_feats.clone(), torch.empty_like(x.sorted_feats)
    cases = {"copy": Case(lambda: target.copy_(source)), "forward": Case(forward), "step": Case(step)}
    found = take_turns(cases, threads, turns)
    bytes_per_ms = 2 * source.nbytes / found["copy"].median_ms
    kernel_map = _map3(coords)
    gathered = (kernel_map.n_pairs + len(coords)) * channels * 4
    compulsory = 2 * source.nbytes + kernel_map.nbytes
    rows = [_row("depthwise", cloud, channels, threads, Native.name, a, found[a]) for a in ("forward", "step")]
    rows[0]["share"] = gathered / bytes_per_ms / found["forward"].median_ms
    rows[0]["compulsory_share"] = compulsory / bytes_per_ms / found["forward"].median_ms
    rows[0]["copy_gb_per_s"] = bytes_per_ms / 1e6
    return rows


def temporary_memory(cloud: str, coords: Tensor, channels: int, threads: int) -> list[Row]:
    """Peak growth of the process during a forward and a backward pass, beyond what they return, in MiB."""
    torch.set_num_threads(threads)
    layer = SubMConv3d(channels, channels, 3, bias=False)
    x = SparseTensor(coords, torch.randn(len(coords), channels, generator=torch.Generator().manual_seed(0)))
    grad = torch.randn(len(coords), channels)
    leaf = x.detach().requires_grad_()

    def forward() -> Tensor:
        with torch.no_grad():
            result: Tensor = layer(x).sorted_feats
            return result

    output = layer(leaf).sorted_feats

    def backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(output, (leaf.sorted_feats, layer.weight), grad, retain_graph=True)

    weight = layer.weight.nbytes
    allowed = 0.1 * output.nbytes + weight
    rows = []
    for action, run, returned, limit in (
        ("forward", forward, output.nbytes, allowed),
        ("backward", backward, output.nbytes + weight, allowed + 8 * weight),
    ):
        peak = peak_extra_bytes(run)
        row: Row = {"question": "temporary memory", "cloud": cloud, "channels": channels, "threads": threads}
        row |= {"engine": Native.name, "action": action, "limit_mib": limit / 2**20}
        row["temporary_mib"] = None if peak is None else max(0, peak - returned) / 2**20
        rows.append(row)
    return rows


def unet(coords: Tensor, threads: int, turns: int) -> list[Row]:
    """Forward of a U-Net of scene flow's size (3 -> 64 .. 128, first kernel 7), and the share of its convolutions."""
    net = SparseUNet(
        3,
        64,
        channels=(64, 64, 128, 128),
        decoder_channels=(128, 128, 128),
        blocks=(1, 1, 1, 1),
        decoder_blocks=(1, 1, 1),
        stem_kernel_size=7,
        down_kernel_size=3,
        norm="instance",
        conv_activation=False,
        widen="conv",
        skip="conv",
        merge="after",
        head_channels=(64,),
        out_rule="floor",
    ).eval()
    feats = torch.randn(len(coords), 3, generator=torch.Generator().manual_seed(0))

    def forward() -> Tensor:
        with torch.no_grad():
            result: Tensor = net(SparseTensor(coords, feats)).sorted_feats
            return result

    timing = take_turns({"forward": Case(forward)}, threads, turns)["forward"]
    row = _row("u-net", "room, 40k", 0, threads, Native.name, "forward", timing)
    row["outside_convolutions"] = 1 - _convolution_ms(forward) / _wall_ms(forward)
    row["parameters"] = sum(p.numel() for p in net.parameters())
    row["voxels"] = len(coords)
    return [row]


def scaling(make: Callable[[int], Tensor], sizes: tuple[int, ...], channels: int, turns: int) -> list[Row]:
    """Microseconds per thousand voxels of map, forward and step as clouds grow; one thread."""
    rows = []
    for size in sizes:
        coords = make(size)
        actions = Native().subm3(coords, channels)
        cases = {"map": Case(actions.build), "forward": Case(actions.forward), "step": Case(actions.step)}
        pairs = _map3(coords).n_pairs
        for action, timing in take_turns(cases, 1, turns).items():
            row = _row("scaling", "growing room", channels, 1, Native.name, action, timing)
            row |= {"voxels": len(coords), "pairs_per_voxel": pairs / len(coords)}
            row["ns_per_unit"] = 1e6 * timing.median_ms / (len(coords) if action == "map" else pairs)
            rows.append(row)
    return rows


def overhead(turns: int) -> list[Row]:
    """What a layer costs before it computes: a submanifold layer on 133 voxels, and the import."""
    coords = torch.stack(torch.meshgrid(*[torch.arange(k) for k in (1, 7, 19, 1)], indexing="ij"), -1).reshape(-1, 4)
    actions = Native().subm3(coords.int(), 16)
    cases = {"forward": Case(actions.forward), "step": Case(actions.step), "map": Case(actions.build)}
    rows = [_row("133 voxels", "tiny", 16, 1, Native.name, a, t) for a, t in take_turns(cases, 1, turns * 20).items()]
    added = _import_ms()
    rows.append(_row("import beyond torch", "", 0, 1, Native.name, "import", Timing(added, added, None, 3)))
    return rows


def _import_ms() -> float:
    """What ``import vision3d.sparse`` takes after ``import torch``, in a process of its own: best of three."""
    seconds = []
    for code in ("import torch", "import torch, vision3d.sparse"):
        runs = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            runs.append(time.perf_counter() - start)
        seconds.append(min(runs))
    return 1e3 * (seconds[1] - seconds[0])


def _map3(coords: Tensor) -> KernelMap:
    return SparseTensor(coords, torch.empty(len(coords), 1)).sites.subm_map((3, 3, 3), (1, 1, 1))


def _pairs_of(layer: Layer, x: SparseTensor, more: tuple[SparseTensor, ...]) -> int:
    """Pairs of the map that a layer uses: what a layer of ones adds up."""
    counting: Layer
    if isinstance(layer, SubMConv3d):
        counting = SubMConv3d(1, 1, layer.kernel_size, bias=False)
    else:
        counting = type(layer)(1, 1, layer.kernel_size, layer.stride, layer.padding, bias=False)
    counting.double()
    torch.nn.init.ones_(counting.weight)
    with torch.no_grad():
        ones = x.with_sorted(torch.ones(len(x), 1, dtype=torch.float64))
        total: Tensor = counting(ones, *more).sorted_feats.sum()
    return round(total.item())


def _actions(
    layer: Layer, x: SparseTensor, more: tuple[SparseTensor, ...]
) -> tuple[Callable[[], Tensor], Callable[[], None]]:
    with torch.no_grad():
        grad = torch.randn_like(layer(x, *more).sorted_feats)

    def forward() -> Tensor:
        with torch.no_grad():
            result: Tensor = layer(x, *more).sorted_feats
            return result

    def step() -> None:
        leaf = x.detach().requires_grad_()
        layer.zero_grad(set_to_none=True)
        layer(leaf, *more).sorted_feats.backward(grad)

    return forward, step


def _split(name: str) -> tuple[str, str]:
    """Engine and action of a case's name."""
    engine, action = name.split("|")
    return engine, action


def _convolution_ms(run: Callable[[], object]) -> float:
    """Time inside convolutions: the engine's operator, and the matrix products that 1x1 layers are."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    return (
        sum(event.cpu_time_total for event in profile.key_averages() if event.key.startswith("vision3d::gconv")) / 1e3
    )


def _wall_ms(run: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def _row(question: str, cloud: str, channels: int, threads: int, engine: str, action: str, timing: Timing) -> Row:
    row: Row = {"question": question, "cloud": cloud, "channels": channels, "threads": threads}
    row |= {"engine": engine, "action": action}
    measured: Mapping[str, Any] = asdict(timing)
    return row | dict(measured)
