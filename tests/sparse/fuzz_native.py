# SPDX-License-Identifier: Apache-2.0
"""Fuzzes the engine: random, malformed, adversarial calls, each of which must return or raise a plain Python error.

A crash ends the process; run it on a build with sanitizers, where reading one byte too many is a crash as well::

    python tests/sparse/fuzz_native.py --cases 100000 --seed 1 [--module build/asan/_native.so]

``--first`` continues elsewhere, ``--cases 1 --first N --verbose`` repeats one case. The same seed makes the same calls.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__" and "--module" in sys.argv:
    import native_module

    native_module.use(sys.argv[sys.argv.index("--module") + 1])

import torch
from fuzz_arguments import native_arguments, some_map
from fuzz_values import DTYPES, EXTREMES, OTHERS, Source, spoiled, spoiled_map
from torch import Tensor, nn

from vision3d import sparse
from vision3d.sparse import CoordinateSet, SparseTensor, _native, functional
from vision3d.sparse.backends import native_conv, native_reduce

#: What a wrong call may raise. AttributeError is what an object of another kind (a list for a tensor) leads to, and
#: RuntimeError torch's own word, for a tensor that it cannot make; the report counts each name apart.
ALLOWED = (
    ValueError,
    TypeError,
    IndexError,
    MemoryError,
    OverflowError,
    NotImplementedError,
    AttributeError,
    RuntimeError,
)
SECONDS_PER_CASE = 120
MEMORY = 8 << 30


NATIVE = sorted(name for name in dir(_native) if callable(getattr(_native, name)) and not name.startswith(("_", "isa")))


def fuzz_module(s: Source) -> None:
    """A function of the compiled module with none to three arguments spoiled, or exchanged for another argument."""
    name = s.choice(NATIVE)
    arguments = native_arguments(s, name)
    for _ in range(s.choice((0, 0, 1, 1, 1, 2, 3))):
        at = s.below(len(arguments))
        arguments[at] = s.choice(arguments) if s.chance(0.07) else spoiled(s, arguments[at])
    getattr(_native, name)(*arguments)


def fuzz_huge_kernel(s: Source) -> None:
    """Maps and sites of kernels and dilations of any size."""
    sites = CoordinateSet.from_coords(s.sites())
    many = (1, 3, 5, 31, 101, 1001, 2**19 + 1, 2**20 - 1, 2**31 - 1, 2**31, 2**62 + 1)
    axes = range(sites.ndim)
    kernel = tuple(s.choice(many) if s.chance(0.4) else s.choice((1, 3)) for _ in axes)
    volume = 1
    for k in kernel:
        volume *= k
    if 5000 < volume <= 2**20 and s.chance(0.99):
        return
    steps = [tuple(s.mostly(1, 2, 5, 2**31 - 1, wrong=s.choice((2**31, 2**40))) for _ in axes) for _ in range(3)]
    if s.chance(0.5):
        sites.subm_map(kernel, steps[0])
    elif s.chance(0.5):
        sites.strided(kernel, steps[0], steps[1], steps[2])
    elif s.chance(0.5):
        sites.transposed(kernel, steps[0], steps[1], steps[2], (0,) * sites.ndim)
    else:
        sites.map_to(CoordinateSet.from_coords(s.sites(sites.ndim)), kernel, steps[0], steps[1], steps[2])


def fuzz_tensor(s: Source) -> None:
    """Construction of sparse tensors, and what can be asked of one."""
    ndim = s.choice((1, 2, 3, 4))
    coords: Any = s.cloud(ndim) if s.chance(0.4) else s.sites(ndim)
    feats: Any = s.values(len(coords), s.choice((1, 4, 0)), dtype=s.choice(DTYPES[:4]))
    if s.chance(0.4):
        coords = spoiled(s, coords)
    if s.chance(0.2):
        feats = spoiled(s, feats)
    options: dict[str, Any] = {}
    for name, low, high in (("spatial_shape", 1, 40), ("stride", 1, 4), ("batch_size", 0, 5)):
        if s.chance(0.3):
            options[name] = s.number(low, high, 0.1) if name == "batch_size" else s.axes(ndim, low, high, 0.1)
    x = SparseTensor(coords, feats, assume_sorted_unique=s.chance(0.3), **options)
    assert x.coords.shape[0] == x.feats.shape[0] == len(x)
    repr(x)
    task = s.below(7)
    if task == 0:
        x[s.number(-3, 5)]
    elif task == 1:
        x[s.number(-3, 5, 0.1) : s.number(-3, 5, 0.1)]
    elif task == 2:
        x.prune(spoiled(s, torch.rand(len(x), generator=s.generator) < 0.5))
    elif task == 3:
        x.union(s.tensor(x.ndim, x.n_channels))
    elif task == 4:
        sparse.cat([x, s.tensor(x.ndim)], s.number(0, 1, 0.1))
    elif task == 5:
        x.sites.rows_of(spoiled(s, s.cloud(x.ndim)))
    else:
        _ = x + s.choice((x, 2.5, x.feats, torch.ones(x.n_channels), s.tensor(), *OTHERS))


def _layer(s: Source, ndim: int) -> nn.Module:
    channels, groups = s.mostly(4, wrong=3), s.mostly(1, 1, 1, 2, 4, wrong=3)
    geometry = (s.axes(ndim, 1, 3, 0.01), s.axes(ndim, 1, 3, 0.01), s.axes(ndim, 0, 2, 0.01))
    kind = s.choice(("SubMConv", "SparseConv", "SparseConv", "SparseConvTranspose", "SparseInverseConv"))
    made: Callable[..., nn.Module] = getattr(sparse, f"{kind}{ndim}d")
    spacing = s.axes(ndim, 1, 2, 0.01)
    if kind == "SubMConv":
        kernel = tuple(s.mostly(1, 3, 3, 5, wrong=2) for _ in range(ndim))
        return made(channels, 4, kernel, spacing, groups=groups)
    options = {"out_rule": s.mostly("dense", "dense", "floor")} if kind == "SparseConv" else {}
    return made(channels, 4, *geometry, groups=groups, dilation=spacing, **options)


def fuzz_layers(s: Source) -> None:
    """Two or three layers one after the other, prescribed sets that fit or do not, and the backward pass."""
    x = s.tensor(dtype=s.mostly(torch.float32, torch.float32, torch.float64, torch.bfloat16, wrong=torch.float16))
    x.requires_grad_()
    first = _layer(s, s.mostly(x.ndim, wrong=s.choice((1, 2, 3, 4))))
    if s.chance(0.9):
        first.to(x.dtype)
    out = first(x)
    for _ in range(s.choice((0, 1, 1, 2))):
        layer = s.mostly(first, wrong=None) if s.chance(0.3) else _layer(s, out.ndim)
        layer.to(out.dtype)
        other: Any = s.choice((x, out, first(s.tensor(x.ndim, dtype=x.dtype)), s.tensor()))
        given = {} if s.chance(0.6) else {"like" if "Inverse" in type(layer).__name__ else "sites": other}
        out = layer(out, **({} if "SubM" in type(layer).__name__ else given))
    out.sorted_feats.float().square().sum().backward()


def fuzz_pools(s: Source) -> None:
    """Pools, norms and upsampling."""
    kind = s.below(7)
    x = s.tensor(channels=s.mostly(4, wrong=3) if kind == 5 else s.choice((1, 4, 17)), dtype=s.choice(DTYPES[:4]))
    x.requires_grad_()
    geometry = (s.axes(x.ndim, 1, 3), s.axes(x.ndim, 1, 3), s.axes(x.ndim, 0, 2))
    out: Any
    if kind <= 1:
        out = functional.max_pool(x, *geometry, out_rule=s.mostly("dense", "floor"))
    elif kind <= 3:
        out = functional.avg_pool(x, *geometry, sites=s.tensor(x.ndim) if s.chance(0.3) else None)
    elif kind == 4:
        out = functional.upsample(
            x, geometry[0], like=s.tensor(s.mostly(x.ndim, wrong=None)) if s.chance(0.5) else None
        )
    elif kind == 5:
        norms = (sparse.SparseInstanceNorm(4), sparse.SparseGroupNorm(2, 4), sparse.SparseGRN(4))
        out = s.choice((*norms, sparse.SparseLayerNorm(4), sparse.SparseBatchNorm(4)))(x)
    else:
        out = functional.global_pool(x, s.mostly("mean", "max", "sum"))
    feats = out.sorted_feats if isinstance(out, SparseTensor) else out
    feats.float().sum().backward()


def fuzz_forged_maps(s: Source) -> None:
    """Convolution and pooling over maps with spoiled fields, forward and backward."""
    m = some_map(s)
    feats: Any = s.values(m.n_in, 4).requires_grad_()
    weight: Any = s.values(m.volume, 4, 6).requires_grad_()
    bias: Any = s.values(6) if s.chance(0.3) else None
    groups: Any = 1
    if s.chance(0.8):
        m = spoiled_map(s, m)
    if s.chance(0.3):
        feats, weight, bias, groups = (spoiled(s, v) if s.chance(0.3) else v for v in (feats, weight, bias, groups))
    if s.chance(0.6):
        out = native_conv.conv(feats, weight, bias, m, groups, s.chance(0.5))
    else:
        out = native_reduce.pool(feats, m, s.choice(("max", "max", "sum", "?")))
    if s.chance(0.1):
        m.pairs_of(s.number(0, 8, 0.2))
    out.sum().backward()


def fuzz_points(s: Source) -> None:
    """From points to voxels and back."""
    ndim = s.choice((1, 2, 3, 3, 4))
    points: Any = s.values(s.rows(), ndim, dtype=s.choice(DTYPES[:3])) * s.choice((1, 1, 10, 1e9, 1e30))
    feats: Any = s.values(len(points), 3) if s.chance(0.5) else None
    if s.chance(0.3):
        points = spoiled(s, points)
    if feats is not None and s.chance(0.2):
        feats = spoiled(s, feats)
    odd = (0, -1.0, 1e-30, float("nan"), float("inf"), *OTHERS)
    size: Any = s.choice((1.0, 0.5, (0.5,) * ndim, torch.full((ndim,), 0.1))) if s.chance(0.9) else s.choice(odd)
    options: dict[str, Any] = {}
    if s.chance(0.4):
        options["batch_index"] = torch.randint(0, 3, (len(points),), generator=s.generator)
    if s.chance(0.2):
        options["lengths"] = [len(points), 0]
    if s.chance(0.2):
        options["axes"] = s.mostly("zyx", "xyz")
    options = {name: spoiled(s, value) if s.chance(0.2) else value for name, value in options.items()}
    if s.chance(0.5):
        x, index = sparse.voxelize(points, feats, size, reduce=s.mostly("mean", "sum", "max", "first"), **options)
        assert len(index) == len(points)
        sparse.devoxelize(x, points, s.mostly("trilinear", "nearest", "idw"), voxel_size=size, **options)
        return
    x = s.tensor(ndim)
    options.setdefault("lengths", None if "batch_index" in options else [len(points), 0, 0])
    if s.chance(0.2):
        sparse.devoxelize(x, spoiled(s, torch.arange(-1, len(x))) if s.chance(0.3) else torch.arange(len(x)), "index")
    elif s.chance(0.5):
        mode = s.mostly("trilinear", "nearest", "idw")
        sparse.devoxelize(x, points, mode, voxel_size=size, fallback=s.choice(((), s.tensor(ndim))), **options)
    else:
        sparse.knn(x, points, s.number(1, 4, 0.2), voxel_size=size, **options)


def fuzz_segments(s: Source) -> None:
    """Segment reductions by index and by pointer."""
    values: Any = s.values(s.rows(), s.choice((1, 5, 20)), dtype=s.choice(DTYPES[:4])).requires_grad_()
    rows, mode = len(values), s.choice(("sum", "mean", "max", "first"))
    index = torch.randint(0, 9, (rows,), generator=s.generator)
    ptr = torch.sort(torch.randint(0, rows + 1, (s.below(9) + 1,), generator=s.generator)).values
    order = torch.randperm(rows, generator=s.generator)
    if s.chance(0.3):
        values = spoiled(s, values)
    if s.chance(0.5):
        given: dict[str, Any] = {"index": index, "n_segments": s.choice((None, 9, *EXTREMES[:7], 2**62))}
    else:
        given = {"ptr": ptr, "order": order if s.chance(0.7) else None}
    if s.chance(0.5):
        name = s.choice(sorted(given))
        given[name] = spoiled(s, given[name])
    out = sparse.segment_reduce(values, mode=mode, **given)
    if out.requires_grad:
        out.float().sum().backward()


def fuzz_borders(s: Source) -> None:
    """Keys, dense grids, COO tensors, interpolation between sets."""
    kind = s.below(5)
    if kind <= 1:
        ndim = s.choice((2, 3))
        coords: Any = s.cloud(ndim) if s.chance(0.5) else s.sites(ndim).abs()
        coords = spoiled(s, coords) if s.chance(0.4) else coords
        (sparse.morton_key, sparse.hilbert_key)[kind](coords, s.mostly(None, 5, 16, 21, wrong=s.choice(EXTREMES)))
    elif kind == 2:
        values = s.values(*(s.choice((1, 2, 3, 0)) for _ in range(s.mostly(3, 4, 5, 6, wrong=2))))
        mask: Any = (values != 0).any(1) if s.chance(0.5) else None
        x = SparseTensor.from_dense(values, spoiled(s, mask) if s.chance(0.3) else mask)
        shape = s.axes(x.ndim, 0, 5) if s.chance(0.3) else None
        x.dense(shape)
        SparseTensor.from_torch_sparse(x.to_torch_sparse())
    elif kind == 3:
        x = s.tensor()
        target = s.mostly(s.tensor(x.ndim), s.tensor(x.ndim).sites, wrong=s.choice((*OTHERS, s.tensor())))
        sparse.interpolate(x, target, s.mostly("nearest", "trilinear", "idw"), k=s.number(1, 3))
    else:
        x = s.tensor()
        sparse.intersection(x, s.tensor(s.mostly(x.ndim, wrong=None)))
        dense: Tensor = x.dense()
        x.dense(tuple(dense.shape[2:]), origin=s.axes(x.ndim, -3, 0))


FAMILIES: dict[Callable[[Source], None], int] = {
    fuzz_module: 45,
    fuzz_forged_maps: 15,
    fuzz_layers: 10,
    fuzz_tensor: 8,
    fuzz_points: 5,
    fuzz_segments: 5,
    fuzz_pools: 5,
    fuzz_borders: 4,
    fuzz_huge_kernel: 3,
}


def run(seed: int, cases: int, first: int = 0, verbose: bool = False) -> dict[str, dict[str, int]]:
    """Outcomes per family: "returned", or the name of the error. Any other exception goes through."""
    families, weights = list(FAMILIES), list(FAMILIES.values())
    outcomes: dict[str, dict[str, int]] = {f.__name__: collections.Counter() for f in families}
    for case in range(first, first + cases):
        s = Source(seed, case)
        family = s.random.choices(families, weights)[0]
        if case % 100 == 0:
            faulthandler.dump_traceback_later(100 * SECONDS_PER_CASE, exit=True)
        try:
            family(s)
            outcome = "returned"
        except ALLOWED as error:
            outcome = type(error).__name__
            if verbose:
                print(f"case {case} {family.__name__}: {outcome}: {str(error)[:300]}", flush=True)
        except BaseException:
            print(f"case {case} of seed {seed}, {family.__name__}:", file=sys.stderr)
            raise
        outcomes[family.__name__][outcome] += 1
    faulthandler.cancel_dump_traceback_later()
    return outcomes


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Fuzz the sparse engine")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--module", type=Path, help="shared object to use in place of the installed one")
    parser.add_argument("--verbose", action="store_true", help="print every error")
    args = parser.parse_args()
    faulthandler.enable()
    warnings.simplefilter("ignore")
    if not any(name in os.environ.get("LD_PRELOAD", "") for name in ("asan", "tsan")):
        # What asks for more memory than a small machine has gets none. Sanitizers need their address space.
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    start = time.perf_counter()
    outcomes = run(args.seed, args.cases, args.first, args.verbose)
    total: collections.Counter[str] = collections.Counter()
    for found in outcomes.values():
        total.update(found)
    print(json.dumps({"module": _native.__file__, "isa": _native.isa(), "seed": args.seed, "first": args.first}))
    print(json.dumps({"seconds": round(time.perf_counter() - start), "cases": args.cases, "total": total}))
    for name, found in outcomes.items():
        print(f"{name}: {json.dumps(dict(sorted(found.items())))}")


if __name__ == "__main__":
    main()
