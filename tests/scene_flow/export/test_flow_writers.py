# SPDX-License-Identifier: Apache-2.0
"""What a run writes beside its records."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from scene_flow.export.flow_files import read_flow
from scene_flow.export.writers import write_results
from vision3d.errors import ConfigError, UserError
from vision3d.types import FlowResult


def result(name: str) -> FlowResult:
    flow = np.full((5, 3), 0.5, dtype=np.float32)
    return FlowResult(name, "ok", points=flow * 4, flow=flow, T_target_source=np.eye(4))


def test_a_file_per_pair_and_format(tmp_path: Path) -> None:
    results = [result("000002"), FlowResult("000003", "failed", "lost"), result("log/17")]
    written = write_results(results, tmp_path, ("npz", "ply"), "icp")
    names = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert names == ["flow/000002.npz", "flow/000002.ply", "flow/log/17.npz", "flow/log/17.ply"]
    assert sorted(written) == sorted(tmp_path / name for name in names)
    assert read_flow(written[0]).method == "icp"


def test_names_with_dots_keep_them(tmp_path: Path) -> None:
    write_results([result("scan.0001")], tmp_path, ("npy",))
    assert (tmp_path / "flow" / "scan.0001.npy").is_file()


@pytest.mark.parametrize(("method", "supervised"), [("nsfp", False), ("zero-flow", False), ("sctn", True), ("", True)])
def test_submissions_claim_no_more_than_is_known(tmp_path: Path, method: str, supervised: bool) -> None:
    pytest.importorskip("pyarrow")
    written = write_results([result("log/17")], tmp_path, ("av2-v1", "av2-v2"), method)
    assert [p.name for p in written] == ["av2-v1.zip", "av2-v2.zip"]
    with zipfile.ZipFile(written[1]) as archive:
        assert json.loads(archive.read("metadata.json")) == {"Is Supervised?": supervised}


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'obj' is no flow format; known are npz, ply, feather, npy, av2-v1, av2-v2"):
        write_results([result("a")], tmp_path, ("npz", "obj"))
    for name in ("../a", "/a", ""):
        with pytest.raises(UserError, match="cannot name a file"):
            write_results([result(name)], tmp_path, ("npz",))
    assert not list(tmp_path.iterdir())


def test_nothing_to_write_reads_nothing(tmp_path: Path) -> None:
    class Untouched(list):
        def __getitem__(self, index: object) -> object:
            raise AssertionError("read")

    assert write_results(Untouched([1, 2]), tmp_path, ()) == []
