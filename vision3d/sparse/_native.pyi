# SPDX-License-Identifier: Apache-2.0
"""Types of the compiled engine. Arrays are contiguous, on the CPU; sizes and dtypes are checked at the call."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

def sort_coords(coords: Tensor, threads: int) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...
def index_sorted(coords: Tensor, threads: int) -> tuple[Tensor, Tensor]: ...
def unique_coords(coords: Tensor, threads: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]: ...
def lookup(keys: Tensor, layout: Tensor, coords: Tensor, threads: int) -> Tensor: ...
def subm_map(
    keys: Tensor, layout: Tensor, kernel_size: Sequence[int], dilation: Sequence[int], threads: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]: ...
def pair_map(
    in_keys: Tensor,
    in_layout: Tensor,
    out_coords: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    threads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]: ...
def output_sites(
    coords: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    out_shape: Sequence[int] | None,
    transposed: bool,
    threads: int,
) -> Tensor: ...
def isa() -> str: ...
def isa_levels() -> list[str]: ...
def conv(
    feats: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pair_in: Tensor,
    pair_out: Tensor,
    list_ptr: Tensor,
    block_in: Tensor,
    block_out: Tensor,
    mirrored: bool,
    groups: int,
    transpose_weight: bool,
    relu: bool,
    out: Tensor,
    threads: int,
) -> None: ...
def conv_grad(
    feats: Tensor,
    grad_out: Tensor,
    pair_in: Tensor,
    pair_out: Tensor,
    list_ptr: Tensor,
    block_in: Tensor,
    block_out: Tensor,
    mirrored: bool,
    groups: int,
    grad_weight: Tensor,
    threads: int,
) -> None: ...
def pool(
    feats: Tensor,
    pair_in: Tensor,
    pair_out: Tensor,
    list_ptr: Tensor,
    block_in: Tensor,
    block_out: Tensor,
    volume: int,
    mirrored: bool,
    largest: bool,
    out: Tensor,
    source: Tensor | None,
    threads: int,
) -> None: ...
def segment_reduce(values: Tensor, order: Tensor, ptr: Tensor, mode: str, out: Tensor, threads: int) -> None: ...
def segment_max(
    values: Tensor, order: Tensor, ptr: Tensor, out: Tensor, source: Tensor | None, threads: int
) -> None: ...
def segment_spread(grad: Tensor, order: Tensor, ptr: Tensor, mode: str, out: Tensor, threads: int) -> None: ...
def scatter_rows(grad: Tensor, source: Tensor, out: Tensor, threads: int) -> None: ...
def sample_norm(
    x: Tensor,
    ptr: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    out: Tensor,
    mean: Tensor,
    scale: Tensor,
    threads: int,
) -> None: ...
def sample_norm_grad(
    grad: Tensor,
    x: Tensor,
    ptr: Tensor,
    groups: int,
    weight: Tensor | None,
    mean: Tensor,
    scale: Tensor,
    grad_x: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    threads: int,
) -> None: ...
def box_overlap_matrix(
    a: NDArray[np.float64], b: NDArray[np.float64], over_union: bool, out: NDArray[np.float64], threads: int
) -> None: ...
def box_overlap_pairs(
    a: NDArray[np.float64], b: NDArray[np.float64], over_union: bool, out: NDArray[np.float64], threads: int
) -> None: ...
def points_in_boxes(
    points: NDArray[np.float64], boxes: NDArray[np.float64], out: NDArray[np.uint8], threads: int
) -> None: ...
def box_nms(boxes: NDArray[np.float64], labels: NDArray[np.int64], limit: float, kept: NDArray[np.uint8]) -> None: ...
