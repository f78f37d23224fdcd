# SPDX-License-Identifier: Apache-2.0
"""The spconv backend: our coordinates and kernel maps, spconv's gather-GEMM-scatter kernels for CUDA.

Only the arithmetic of a convolution is spconv's. Maps come from plain torch on the same device and are handed over as
spconv's table of index pairs, so rows stay in our order and every backend returns the same rows. The algorithm is
spconv's "Native" one. Its implicit GEMM needs bit masks and their sorted splits, which only spconv's own map builder
makes; it is not offered.

Grouped convolutions, dtypes spconv has no kernels for, and features of 2 GiB and more (its offsets are 32 bits) take
the reference on the same device; bfloat16 is widened to float32. Bias and ReLU are applied outside, where they work on
every device and in training and evaluation alike. CPU tensors are for tests: spconv's CPU wheel runs in one thread here
(with more, its sums race) and has no backward pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from vision3d.sparse.backends.reference import ReferenceBackend
from vision3d.sparse.kernel_map import KernelMap

REMEDY = "install it with `pip install 'vision3d[cuda]'`"
#: spconv computes byte offsets in 32 bits and refuses larger operands.
MAX_BYTES = 2**31 - 1


class Pairs(NamedTuple):
    """A kernel map in spconv's form.

    Attributes:
        table: (2, K, W) int32 input and output rows per kernel offset, -1 behind the end of a list.
        counts: (K,) int32 on the CPU: length of each list; 0 for the centre of a submanifold map.
        pair_out: the map's own tensor, to tell a map from its transposed form.
    """

    table: Tensor
    counts: Tensor
    pair_out: Tensor


#: Tables by the ``pair_in`` of the map they were made from; an entry dies with that tensor.
_tables: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


class SpconvBackend(ReferenceBackend):
    """Maps, pooling and reductions of the reference backend, convolutions by spconv.

    Raises:
        ImportError: spconv is not installed, or does not load.
    """

    name = "spconv"

    def __init__(self) -> None:
        _spconv()

    def conv(
        self,
        feats: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        kernel_map: KernelMap,
        groups: int = 1,
        relu: bool = False,
    ) -> Tensor:
        """See ``Backend.conv``; the first derivatives only.

        Raises:
            TypeError: feats and weight differ in dtype.
            ValueError: shapes do not fit each other or the map.
        """
        m = kernel_map
        _check(feats, weight, m, groups)
        no_pairs = m.pair_in.shape[0] == 0
        if groups != 1 or not _has_kernels(feats, m.n_out * weight.shape[2]) or (no_pairs and not m.mirrored):
            return super().conv(feats, weight, bias, kernel_map, groups, relu)
        wide = torch.float32 if feats.dtype == torch.bfloat16 else feats.dtype
        if no_pairs:
            out = feats.to(wide) @ weight[m.volume // 2].to(wide)
        else:
            out = spconv_conv(feats.to(wide), weight.to(wide), m.pair_in, m.pair_out, m.list_ptr, m.n_out, m.mirrored)
        if bias is not None:
            out = out + bias.to(wide)
        return (out.relu() if relu else out).to(feats.dtype)


@torch.library.custom_op("vision3d::spconv_conv", mutates_args=(), device_types=("cpu", "cuda"))
def spconv_conv(
    feats: Tensor,
    weight: Tensor,
    pair_in: Tensor,
    pair_out: Tensor,
    list_ptr: Tensor,
    n_out: int,
    mirrored: bool,
) -> Tensor:
    """(n_out, Cout): a convolution with weight (K, Cin, Cout) over the lists of a ``KernelMap`` that has pairs."""
    pairs, swapped = pairs_of(pair_in, pair_out, list_ptr, weight.shape[0], mirrored)
    with _guarded(feats):
        out: Tensor = _spconv().indice_conv(
            feats.contiguous(), _filters(weight), pairs.table, pairs.counts, n_out, swapped, mirrored
        )
    return out


@spconv_conv.register_fake
def _(feats, weight, pair_in, pair_out, list_ptr, n_out, mirrored):  # type: ignore[no-untyped-def]
    return feats.new_empty((n_out, weight.shape[2]))


@torch.library.custom_op("vision3d::spconv_conv_grad", mutates_args=(), device_types=("cpu", "cuda"))
def spconv_conv_grad(
    feats: Tensor,
    weight: Tensor,
    grad: Tensor,
    pair_in: Tensor,
    pair_out: Tensor,
    list_ptr: Tensor,
    mirrored: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of ``spconv_conv`` for feats (n_in, Cin) and weight (K, Cin, Cout), from grad (n_out, Cout).

    Raises:
        NotImplementedError: spconv is its CPU wheel.
    """
    if _cpu_only():
        raise NotImplementedError(
            "spconv's CPU wheel has no backward pass (it asks for a CUDA stream); use the native or reference backend, "
            "or spconv-cu120"
        )
    pairs, swapped = pairs_of(pair_in, pair_out, list_ptr, weight.shape[0], mirrored)
    with _guarded(feats):
        grad_feats, grad_filters = _spconv().indice_conv_backward(
            feats.contiguous(), _filters(weight), grad.contiguous(), pairs.table, pairs.counts, swapped, mirrored
        )
    return grad_feats, grad_filters.view(weight.shape[2], *weight.shape[:2]).permute(1, 2, 0).contiguous()


@spconv_conv_grad.register_fake
def _(feats, weight, grad, pair_in, pair_out, list_ptr, mirrored):  # type: ignore[no-untyped-def]
    return torch.empty_like(feats, memory_format=torch.contiguous_format), weight.new_empty(weight.shape)


def _setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    feats, weight, pair_in, pair_out, list_ptr, _, ctx.mirrored = inputs
    ctx.save_for_backward(feats, weight, pair_in, pair_out, list_ptr)


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    feats, weight, *lists = ctx.saved_tensors
    return (*spconv_conv_grad(feats, weight, grad, *lists, ctx.mirrored), None, None, None, None, None)


spconv_conv.register_autograd(_backward, setup_context=_setup)


def pairs_of(pair_in: Tensor, pair_out: Tensor, list_ptr: Tensor, volume: int, mirrored: bool) -> tuple[Pairs, bool]:
    """The table of a map, made once, and whether it has to be read from its other side.

    A map and its transposed form share one table: spconv reads it either way.
    """
    found = _tables.get(pair_in)
    if found is not None and found.pair_out is pair_out:
        return found, False
    other = _tables.get(pair_out)
    if other is not None and other.pair_out is pair_in:
        return other, True
    made = Pairs(*_table(pair_in, pair_out, list_ptr, volume, mirrored), pair_out)
    _tables[pair_in] = made
    return made, False


def _table(pair_in: Tensor, pair_out: Tensor, list_ptr: Tensor, volume: int, mirrored: bool) -> tuple[Tensor, Tensor]:
    lengths = list_ptr.diff()
    first = volume // 2 + 1 if mirrored else 0
    width = int(lengths.max())
    # Pair p of list l lands in row (first + l), place p - list_ptr[l].
    shift = (torch.arange(len(lengths)) + first) * width - list_ptr[:-1]
    device = pair_in.device
    place = torch.repeat_interleave(shift.to(device), lengths.to(device), output_size=len(pair_in))
    place += torch.arange(len(pair_in), device=device)
    table = pair_in.new_full((2, volume, width), -1)
    table.view(2, -1)[:, place] = torch.stack([pair_in, pair_out])
    counts = torch.zeros(volume, dtype=torch.int32)
    counts[first:] = lengths
    if mirrored:
        table[:, : first - 1] = table[:, first:].flip(0, 1)
        counts[: first - 1] = counts[first:].flip(0)
    return table, counts


def _filters(weight: Tensor) -> Tensor:
    """(Cout, K, Cin), contiguous, as spconv stores them."""
    return weight.permute(2, 0, 1).contiguous()


@contextmanager
def _guarded(feats: Tensor) -> Iterator[None]:
    """What spconv needs: no autocast inside its products, the tensor's CUDA device, one thread in the CPU wheel."""
    threads = torch.get_num_threads()
    device = feats.device.type
    with torch.autocast(device, enabled=False), torch.cuda.device_of(feats):
        if device == "cpu" and _cpu_only():
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


def _check(feats: Tensor, weight: Tensor, kernel_map: KernelMap, groups: int) -> None:
    if feats.dtype != weight.dtype or not feats.is_floating_point():
        raise TypeError(f"feats ({feats.dtype}) and weight ({weight.dtype}) must share a floating dtype")
    if weight.shape[0] != kernel_map.volume:
        raise ValueError(f"weight has {weight.shape[0]} kernel offsets, the kernel map {kernel_map.volume}")
    if feats.shape[0] != kernel_map.n_in:
        raise ValueError(f"feats has {feats.shape[0]} rows, the kernel map {kernel_map.n_in} inputs")
    if feats.shape[1] != weight.shape[1] * groups:
        raise ValueError(f"feats {tuple(feats.shape)} and weight {tuple(weight.shape)} do not fit, groups={groups}")


def _has_kernels(feats: Tensor, out_elements: int) -> bool:
    """Whether spconv can convolve tensors like this one into as many output elements."""
    if max(feats.numel(), out_elements) * feats.element_size() > MAX_BYTES:
        return False
    if feats.device.type == "cpu":
        return feats.dtype != torch.float16
    if _cpu_only():
        _warn_cpu_only()
        return False
    return feats.dtype != torch.float64


@cache
def _warn_cpu_only() -> None:
    warnings.warn(
        "spconv is installed as its CPU wheel; sparse layers on CUDA use the slow reference backend. Remove it "
        f"(`pip uninstall spconv cumm`), then {REMEDY}",
        RuntimeWarning,
        stacklevel=5,
    )


@cache
def _spconv() -> Any:
    """spconv's functions on tensors. Raises ``ImportError``."""
    try:
        with warnings.catch_warnings():
            # Its helpers use calls that Python and torch deprecate.
            warnings.simplefilter("ignore")
            from spconv.pytorch import ops
    except ImportError as error:
        raise ImportError(f"the spconv backend needs spconv ({error}); {REMEDY}") from error
    return ops


def _cpu_only() -> bool:
    return _spconv().GEMM_CPP is None
