# SPDX-License-Identifier: Apache-2.0
"""The engine's page says what the engine does."""

import re
from pathlib import Path

import torch

from vision3d import sparse
from vision3d.sparse import backends

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "sparse.md").read_text(encoding="utf-8")


def test_the_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    exec(code, names)
    cloud, fine = names["cloud"], names["fine"]
    assert isinstance(cloud, sparse.SparseTensor)
    assert isinstance(fine, sparse.SparseTensor)
    assert torch.equal(fine.coords, cloud.coords)
    encoder = names["encoder"]
    assert isinstance(encoder, torch.nn.Module)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_every_name_exists() -> None:
    listing = PAGE.split("## Layers")[1].split("## Backends")[0]
    for name in re.findall(r"`([A-Za-z_]+)`", listing):
        assert any(hasattr(sparse, name + end) for end in ("", "1d", "3d")), name
    table = PAGE.split("## Backends")[1]
    assert all(f"| `{name}` |" in table for name in backends.NAMES)
    assert backends.ENV in table


def test_the_example_of_the_front_page_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (code,) = (block for block in blocks if "vision3d.sparse" in block)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    exec(code, names)
    scores, features, cloud = names["scores"], names["features"], names["cloud"]
    assert isinstance(scores, torch.Tensor)
    assert scores.shape == (10_000, 20)
    assert isinstance(features, sparse.SparseTensor)
    assert isinstance(cloud, sparse.SparseTensor)
    assert features.n_channels == 32
    assert len(features) < len(cloud)
