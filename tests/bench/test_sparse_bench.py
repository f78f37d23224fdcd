# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vision3d.bench import clouds, questions, sparse
from vision3d.bench.peers import PEERS, Native, TorchGather
from vision3d.bench.targets import verdicts
from vision3d.cli import main


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clouds small enough for a test."""
    monkeypatch.setattr(clouds, "room", lambda voxel_m=0.5, seed=0: _cube(8))
    monkeypatch.setattr(questions, "CHANNELS", (16, 32))
    monkeypatch.setattr(questions, "_import_ms", lambda: 1.0)


def _cube(edge: int) -> torch.Tensor:
    axis = torch.arange(edge)
    grid = torch.stack(torch.meshgrid(axis[:1], axis, axis, axis, indexing="ij"), -1)
    return grid.reshape(-1, 4).int()[torch.randperm(edge**3, generator=torch.Generator().manual_seed(0))]


def test_engines_compute_the_same(tiny: None) -> None:
    coords = _cube(6)
    torch.manual_seed(0)
    ours = Native().subm3(coords, 8).forward()
    torch.manual_seed(0)
    assert torch.allclose(ours, TorchGather().subm3(coords, 8).forward(), atol=1e-5)


def test_useful_flops_of_a_strided_layer_are_its_pairs() -> None:
    layer = questions.SparseConv3d(4, 4, 2, 2, bias=False)
    x = questions.SparseTensor(_cube(4), torch.randn(64, 4))
    assert questions._pairs_of(layer, x, ()) == 64
    up = questions.SparseInverseConv3d(4, 4, 2, 2, bias=False)
    assert questions._pairs_of(up, layer(x), (x,)) == 64
    subm = questions.SubMConv3d(4, 4, 3, bias=False)
    assert questions._pairs_of(subm, x, ()) == 10**3


def test_the_command_writes_what_it_measured(tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "points.npy", np.random.default_rng(0).uniform(0, 1, (200, 3)))
    cloud = f"{tmp_path / 'points.npy'}:0.1"
    args = ["bench", "sparse", "--quick", "--turns", "1", "--threads", "1", "--out", str(tmp_path / "out")]
    threads = torch.get_num_threads()
    assert main([*args, "--cloud", cloud]) == 0
    assert torch.get_num_threads() == threads
    out = capsys.readouterr().out
    document = json.loads((tmp_path / "out" / "sparse.json").read_text())
    assert {row["cloud"] for row in document["rows"] if row["question"] == "map"} == {"room", "points"}
    assert set(document["peers"]) == {peer.name for peer in PEERS}
    assert "MinkowskiEngine (no adapter" in out
    for name in ("sparse_forward.png", "sparse_step.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ["points.npy", "points.npy:0", "points.npy:x", ":0.1"])
def test_bad_clouds_are_a_mistake_of_the_user(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "sparse", "--cloud", text]) == 2
    assert "FILE:VOXEL_M is needed" in capsys.readouterr().err


def test_a_missing_file_is_known_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "sparse", "--cloud", f"{tmp_path}/none.bin:0.1", "--out", str(tmp_path / "out")]) == 2
    assert "none.bin" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_targets_follow_from_rows() -> None:
    row = {"question": "subm3", "cloud": "room", "channels": 16, "threads": 1, "engine": "vision3d"}
    rows = [row | {"action": "forward", "share": 0.7, "median_ms": 1.0}]
    found = {v.name: v for v in verdicts(rows)}
    assert found["SubM 3^3 forward, room, C = 16, 1 thread"].met is True
    assert found["SubM 3^3 forward, room, C = 32, 1 thread"].met is None
    maps = [
        {"question": "map", "cloud": "room", "channels": 0, "threads": t, "engine": "vision3d", "action": "shuffled"}
        | {"median_ms": ms, "ns_per_voxel": ns}
        for t, ms, ns in ((1, 2.0, 140.0), (2, 1.0, 70.0))
    ]
    found = {v.name: v for v in verdicts(maps)}
    assert found["map 3^3, room, shuffled"].met is False
    assert found["two threads over one, map, room"].measured == 2.0


def test_charts_hold_one_line_per_engine() -> None:
    common = {"question": "subm3", "cloud": "room", "threads": 1, "action": "step"}
    rows = [common | {"engine": e, "channels": c, "share": c / 100} for e in ("vision3d", "other") for c in (16, 32)]
    rows += [rows[0] | {"threads": 2}, rows[0] | {"action": "forward"}, rows[0] | {"cloud": "lidar"}]
    drawn = sparse.chart({"rows": rows}, "step")
    assert set(drawn.series) == {"vision3d", "other"}
    assert [list(values) for values in drawn.series["vision3d"]] == [[16, 32], [16, 32]]
