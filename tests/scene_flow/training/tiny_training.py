# SPDX-License-Identifier: Apache-2.0
"""A training that takes a second: a network of a few numbers, pairs that are drawn, a cache in a folder.

As a program: ``python tiny_training.py CACHE OUT [BATCH [WAIT_S]]`` trains and writes weights to ``OUT.RANK.npz``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scene_flow.networks.output import FlowOutput
from scene_flow.training.config import TrainConfig
from scene_flow.training.loop import train_network
from vision3d.types import CloudPair, FlowTruth

Arrays = dict[str, np.ndarray]

QUICK = TrainConfig(
    steps=12, batch=2, points=40, lr=1e-2, fsc_neighbours=4, checkpoint_every=3, validate=2, validate_every=4
)


class TinyNet(nn.Module):
    """Flow from a point's place and the middle of both clouds, by two layers; optionally with a batch norm."""

    def __init__(self, norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Linear(9, 16)
        self.norm = nn.BatchNorm1d(16) if norm else None
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(16, 3)

    def forward(self, source: Tensor, target: Tensor) -> FlowOutput:
        middles = torch.cat([source.mean(1), target.mean(1)], -1)[:, None].expand(-1, source.shape[1], -1)
        features = self.first(torch.cat([source, middles], -1)).tanh()
        if self.norm is not None:
            features = self.norm(features.transpose(1, 2)).transpose(1, 2)
        flow = self.last(self.dropout(features))
        ones = torch.ones_like(flow[..., 0])
        return FlowOutput(flow, flow, features, ones, ones > 0)


class Drawn:
    """Pairs of a cloud and the same cloud moved; every pair moves by another vector."""

    samples: type = CloudPair
    bad: Mapping[int, str] = {}
    name = "drawn"

    def __init__(self, pairs: int = 12, points: int = 60) -> None:
        self.pairs, self.points = pairs, points

    def __len__(self) -> int:
        return self.pairs

    def key(self, index: int) -> str:
        return f"pair-{index}"

    def _arrays(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([5, index])
        source = rng.uniform(-1, 1, (self.points, 3)).astype(np.float32)
        return source, np.broadcast_to(rng.uniform(-1, 1, 3), source.shape).astype(np.float32)

    def __getitem__(self, index: int) -> CloudPair:
        source, flow = self._arrays(index)
        return CloudPair(self.key(index), source, source + flow, axes="camera")

    def truth(self, index: int) -> FlowTruth | None:
        source, flow = self._arrays(index)
        return FlowTruth(flow, np.ones(len(source), bool), source, axes="camera")


class Folder:
    """A fit context whose cache is a folder of .npz files; written like the runner's, whole or not at all."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.seed = folder, seed
        self.lines: list[str] = []
        self.made: list[str] = []
        self.ticks = self.bars = 0  # steps counted, progress bars taken away
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key.replace(' ', '-')}.npz"

    def cached(self, key: str, make: Callable[[], Arrays]) -> Arrays:
        path = self._path(key)
        if not path.exists():
            torch.manual_seed(1)  # the runner seeds before and after every stage
            arrays: Any = make()
            self.made.append(key)
            part = path.with_suffix(".part")
            with open(part, "wb") as file:
                np.savez(file, **arrays)
            part.rename(path)
            torch.manual_seed(2)
            return arrays
        with np.load(path, allow_pickle=False) as file:
            return dict(file)

    def has(self, key: str) -> bool:
        return self._path(key).exists()

    def forget(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def progress(self, items: Iterable[Any], total: int, label: str) -> Iterator[Any]:
        try:
            for item in items:
                yield item
                self.ticks += 1
        finally:
            self.bars += 1

    def log(self, message: str) -> None:
        self.lines.append(message)

    def keys(self) -> list[str]:
        """What is kept, by name of file."""
        return sorted(path.stem for path in self.folder.glob("*.npz"))


def fresh(seed: int = 0, **options: Any) -> TinyNet:
    """A network with reproducible first weights."""
    torch.manual_seed(seed)
    return TinyNet(**options)


def weights(net: nn.Module) -> Arrays:
    """State of a network, copied."""
    return {name: tensor.numpy().copy() for name, tensor in net.state_dict().items()}


def same(a: Arrays, b: Arrays) -> bool:
    """Whether two states are equal bit for bit."""
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


class Slow(TinyNet):
    """Waits before each step, so that it can be killed in between; keeps statistics that no weight depends on."""

    def __init__(self, wait_s: float) -> None:
        super().__init__()
        self.wait_s = wait_s
        self.watch = nn.BatchNorm1d(16, affine=False)

    def forward(self, source: Tensor, target: Tensor) -> FlowOutput:
        time.sleep(self.wait_s)
        output = super().forward(source, target)
        self.watch(output.features.detach().transpose(1, 2))
        return output


class Hoarder(Folder):
    """Keeps every checkpoint."""

    def forget(self, key: str) -> None:
        self.made.append(f"forget {key}")


def main(cache: str, out: str, batch: str = "2", wait_s: str = "0") -> None:
    """Train and write the weights; in several processes each writes its own."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = Slow(float(wait_s))
    facts = train_network(net, Drawn(), replace(QUICK, batch=int(batch)), Hoarder(Path(cache)))
    found: Any = {**weights(net), "facts/losses": np.array(facts["losses"])}
    np.savez(f"{out}.{os.environ.get('RANK', '0')}.npz", **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
