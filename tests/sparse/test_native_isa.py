# SPDX-License-Identifier: Apache-2.0
"""Every instruction set of the compiled kernels, forced one by one, gives the reference's numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

_native = pytest.importorskip("vision3d.sparse._native")

LEVELS = ("generic", "neon", "avx2", "avx512")
PROGRAM = """
import sys
import numpy as np
import torch
from vision3d import sparse
from vision3d.sparse import _native

generator = torch.Generator().manual_seed(3)
coords = torch.unique(torch.randint(0, 12, (700, 4), generator=generator) % torch.tensor([2, 12, 12, 12]), dim=0).int()
results = {}
# Depthwise, whole vectors of every width, rests of one, groups; single and double precision.
for dtype in (torch.float32, torch.float64):
    for cin, cout, groups in ((33, 33, 33), (16, 32, 1), (5, 19, 1), (12, 40, 4)):
        torch.manual_seed(cin)
        layer = sparse.SubMConv3d(cin, cout, 3, groups=groups, dtype=torch.float64)
        down = sparse.SparseConv3d(cout, cout, 2, 2, groups=groups, dtype=torch.float64)
        feats = torch.randn(len(coords), cin, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        out = down.to(dtype)(layer.to(dtype)(sparse.SparseTensor(coords, feats))).feats
        out.backward(torch.randn(out.shape, generator=generator, dtype=torch.float64).to(dtype))
        found = {"out": out, "dx": feats.grad, "dw": layer.weight.grad, "db": layer.bias.grad}
        for name, value in found.items():
            results[f"{name} {cin} {cout} {groups} {dtype}"] = value.detach().double().numpy()
np.savez(sys.argv[1], isa=_native.isa(), **results)
"""


def run(folder: Path, name: str, **environment: str) -> dict[str, np.ndarray]:
    path = folder / f"{name}.npz"
    subprocess.run([sys.executable, "-c", PROGRAM, str(path)], check=True, env={**os.environ, **environment})
    return dict(np.load(path))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return run(tmp_path_factory.mktemp("isa"), "reference", VISION3D_SPARSE_BACKEND="reference")


@pytest.mark.parametrize("level", LEVELS)
def test_level(level: str, reference: dict[str, np.ndarray], tmp_path: Path) -> None:
    if level not in _native.isa_levels():
        pytest.skip(f"no {level} here; this build and processor have {', '.join(_native.isa_levels())}")
    found = run(tmp_path, level, VISION3D_CPU_ISA=level)
    assert found.pop("isa") == level
    assert len(found) == 32
    for name, values in found.items():
        tolerance = 1e-5 if "float32" in name else 1e-12
        assert np.abs(values - reference[name]).max() <= tolerance * np.abs(reference[name]).max(), name


def test_the_best_level_is_the_default() -> None:
    assert _native.isa_levels()[0] == "generic"
    forced = os.environ.get("VISION3D_CPU_ISA")
    assert _native.isa() == (forced or _native.isa_levels()[-1])


def test_unknown_level() -> None:
    program = "from vision3d.sparse import _native; _native.isa()"
    environment = {**os.environ, "VISION3D_CPU_ISA": "avx1024"}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    levels = ", ".join(_native.isa_levels())
    message = (
        f"ValueError: VISION3D_CPU_ISA=avx1024 is not a level that this build and processor have; there are: {levels}"
    )
    assert message in found.stderr
