# SPDX-License-Identifier: Apache-2.0
"""Chunked attention against a loop, in value, gradient and memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vision3d.nn.attention import chunked_attention


def inputs(n: int, m: int, d: int = 6, e: int = 6, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n + m)
    return tuple(
        torch.randn(2, rows, width, dtype=dtype, generator=generator) for rows, width in ((n, d), (m, d), (m, e))
    )


def by_loops(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
    out = torch.zeros(*q.shape[:2], v.shape[2], dtype=q.dtype)
    for sample in range(len(q)):
        for i in range(q.shape[1]):
            weights = [float(scale * (q[sample, i] * key).sum()) for key in k[sample]]
            if bias is not None:
                weights = [w + float(b) for w, b in zip(weights, bias[sample])]
            whole = torch.tensor(weights, dtype=torch.float64).exp()
            for share, value in zip(whole / whole.sum(), v[sample]):
                out[sample, i] += share * value
    return out


@pytest.mark.parametrize("tile", [None, 1, 7, 50, 1000])
def test_equals_a_loop_on_50_points(tile: int | None) -> None:
    q, k, v = inputs(50, 50)
    assert (chunked_attention(q, k, v, tile) - by_loops(q, k, v, 6**-0.5)).abs().max() < 1e-12


@pytest.mark.parametrize("tile", [None, 7])
def test_scale_bias_and_another_width_of_values(tile: int | None) -> None:
    for e in (6, 9):
        q, k, v = inputs(11, 13, e=e)
        bias = torch.randn(2, 13, dtype=torch.float64)
        expected = by_loops(q, k, v, 0.3, bias)
        assert (chunked_attention(q, k, v, tile, scale=0.3, bias=bias) - expected).abs().max() < 1e-12


def test_tiles_change_nothing_in_single_precision() -> None:
    q, k, v = inputs(700, 900, 64, 64, torch.float32)
    whole = torch.softmax(q @ k.mT / 8, -1) @ v
    for tile in (None, 64, 4096):
        assert (chunked_attention(q, k, v, tile) - whole).abs().max() < 1e-5


@pytest.mark.parametrize("tile", [None, 2])
def test_gradients_by_finite_differences(tile: int | None) -> None:
    tensors = [x[:, :5].clone().requires_grad_() for x in inputs(5, 6)]
    bias = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q, k, v: chunked_attention(q, k, v, tile), tensors)
    assert torch.autograd.gradcheck(lambda q, k, v, b: chunked_attention(q, k, v, tile, bias=b), [*tensors, bias])


def test_a_bias_of_log_count_stands_for_repeated_keys() -> None:
    q, k, v = inputs(20, 4)
    repeats = torch.tensor([1, 3, 2, 5])
    many = chunked_attention(q, k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1))
    assert (chunked_attention(q, k, v, bias=repeats.double().log().expand(2, 4)) - many).abs().max() < 1e-12


def test_wrong_shapes_are_named() -> None:
    q, k, v = inputs(5, 6)
    with pytest.raises(ValueError, match=r"\(2, 5, 6\), \(2, 6, 6\), \(2, 5, 6\)"):
        chunked_attention(q, k, v[:, :5])
    with pytest.raises(ValueError, match="3 axes"):
        chunked_attention(q[0], k, v)
    with pytest.raises(ValueError, match=r"bias must be \(2, 6\)"):
        chunked_attention(q, k, v, bias=torch.zeros(2, 5))
    with pytest.raises(ValueError, match="tile must be at least 1"):
        chunked_attention(q, k, v, 0)
    with pytest.raises(ValueError, match="M at least 1"):
        chunked_attention(q, k[:, :0], v[:, :0])


GROWTH = """
import sys, torch
from vision3d.nn.attention import chunked_attention
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
def run(n):
    q, k, v = (torch.randn(1, n, 16, requires_grad=True) for _ in range(3))
    chunked_attention(q, k, v, TILE).sum().backward()
run(256)
before = peak()
run(5000)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("tile", ["None", "128"])
def test_the_matrix_of_weights_is_never_there(tile: str) -> None:
    """5000 x 5000 float32 would be 95 MiB, and the backward pass would hold several."""
    run = subprocess.run(
        [sys.executable, "-c", GROWTH.replace("TILE", tile)], capture_output=True, text=True, check=True
    )
    assert float(run.stdout) < 45


def test_the_fused_kernel_is_the_one_that_was_measured() -> None:
    """Torch picks its full-matrix path silently; this pins that the arguments used here do not lead there."""
    q, k, v = (x[:, None].float() for x in inputs(33, 40))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        functional.scaled_dot_product_attention(q, k, v, torch.zeros(2, 1, 1, 40))
