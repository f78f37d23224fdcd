# SPDX-License-Identifier: Apache-2.0
"""The engines that ours is measured beside. Those that are not installed are skipped by name.

A peer makes, for one cloud and one number of channels, a submanifold 3^3 layer without bias as three actions: build the
kernel map, forward, and a training step (forward and both gradients).
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vision3d.sparse import SparseTensor, SubMConv3d, backend


@dataclass(frozen=True)
class Actions:
    """What is timed. ``build`` starts from shuffled int32 coordinates."""

    build: Callable[[], object]
    forward: Callable[[], Tensor]
    step: Callable[[], object]


class Peer(Protocol):
    """One engine."""

    name: str

    def missing(self) -> str | None:
        """Why it cannot be measured here; None when it can."""
        ...

    def subm3(self, coords: Tensor, channels: int) -> Actions:
        """Actions on (N, 4) int32 coordinates."""
        ...


class Native:
    """This library, through its public layers: validation, autograd and module calls included."""

    name = "vision3d"

    def missing(self) -> str | None:
        """Why it cannot be measured here; None when it can."""
        return None

    def subm3(self, coords: Tensor, channels: int) -> Actions:
        """Actions on (N, 4) int32 coordinates."""
        layer = SubMConv3d(channels, channels, 3, bias=False)
        feats = _feats(coords, channels)
        x = SparseTensor(coords, feats)
        grad = _feats(coords, channels)

        def build() -> object:
            return SparseTensor(coords, feats).sites.subm_map((3, 3, 3), (1, 1, 1))

        def forward() -> Tensor:
            with torch.no_grad():
                return layer(x).sorted_feats

        def step() -> None:
            leaf = x.detach().requires_grad_()
            layer.weight.grad = None
            layer(leaf).sorted_feats.backward(grad)

        return Actions(build, forward, step)


class TorchGather:
    """Plain torch: one gather, matrix product and ``index_add`` per kernel offset (our reference backend)."""

    name = "torch gather-mm"

    def missing(self) -> str | None:
        """Why it cannot be measured here; None when it can."""
        return None

    def subm3(self, coords: Tensor, channels: int) -> Actions:
        """Actions on (N, 4) int32 coordinates."""
        ours = Native().subm3(coords, channels)

        def through_torch(action: Callable[[], object]) -> Callable[[], object]:
            def run() -> object:
                with backend("reference"):
                    return action()

            return run

        return Actions(*(through_torch(a) for a in (ours.build, ours.forward, ours.step)))  # type: ignore[arg-type]


class Spconv:
    """spconv's CPU path: the CPU wheel, or a CUDA wheel with ``algo=Native``."""

    name = "spconv"

    def missing(self) -> str | None:
        """Why it cannot be measured here; None when it can."""
        return None if importlib.util.find_spec("spconv") is not None else "not installed"

    def subm3(self, coords: Tensor, channels: int) -> Actions:
        """Actions on (N, 4) int32 coordinates."""
        with warnings.catch_warnings():
            # Its helpers use calls that Python and torch deprecate.
            warnings.simplefilter("ignore")
            import spconv.pytorch as spconv
            from spconv.core import ConvAlgo
            from spconv.pytorch import ops

        # Its backward asks for a CUDA stream even on the CPU; there is none, and nobody uses the answer.
        if not torch.cuda.is_available():
            ops.get_current_stream = lambda: 0
        low = coords[:, 1:].amin(0)
        # It reads rows that are not contiguous wrongly, and says nothing.
        indices = coords.clone(memory_format=torch.contiguous_format)
        indices[:, 1:] -= low
        shape = (indices[:, 1:].amax(0) + 1).tolist()
        layer = spconv.SubMConv3d(channels, channels, 3, bias=False, indice_key="map", algo=ConvAlgo.Native)
        feats = _feats(coords, channels)
        grad = _feats(coords, channels)
        x = spconv.SparseConvTensor(feats, indices, shape, 1)
        with torch.no_grad():
            layer(x)

        def build() -> object:
            return ops.get_indice_pairs(
                indices, 1, shape, ConvAlgo.Native, [3] * 3, [1] * 3, [1] * 3, [1] * 3, [0] * 3, True
            )

        def forward() -> Tensor:
            with torch.no_grad():
                result: Tensor = layer(x).features
                return result

        def step() -> None:
            layer.weight.grad = None
            leaf = x.replace_feature(feats.detach().requires_grad_())
            layer(leaf).features.backward(grad)

        return Actions(build, forward, step)


class Absent:
    """A peer that is not measured, named with the reason so that nobody wonders."""

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        self._why = why

    def missing(self) -> str | None:
        """Why it cannot be measured here; None when it can."""
        return self._why

    def subm3(self, coords: Tensor, channels: int) -> Actions:
        """Never measured. Raises ``RuntimeError``."""
        raise RuntimeError(f"{self.name}: {self._why}")


PEERS: tuple[Peer, ...] = (
    Native(),
    TorchGather(),
    Spconv(),
    Absent("MinkowskiEngine", "no adapter: it has no wheel and must be compiled by hand"),
    Absent("Open3D", "no adapter: it takes points, not voxels, and builds no map"),
    Absent("torchsparse", "no package; its CPU build lacks the map functions its Python layer calls"),
    Absent("spconv-triton", "refuses CPU tensors"),
    Absent("warpconvnet", "refuses a CPU build of torch"),
    Absent("fvdb-core", "needs nvcc to build"),
)


def _feats(coords: Tensor, channels: int) -> Tensor:
    return torch.randn(len(coords), channels, generator=torch.Generator().manual_seed(channels))
