# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vision3d.errors import ConfigError, DataError
from vision3d.weights import find_weights, fingerprint, load_weights, read_weights


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISION3D_WEIGHTS", str(tmp_path))
    return tmp_path


def test_file_is_found_below_the_folder_and_directly_in_it(folder: Path) -> None:
    assert find_weights("net/a.pth") is None
    (folder / "a.pth").write_bytes(b"x")
    assert find_weights("net/a.pth") == folder / "a.pth"
    (folder / "net").mkdir()
    (folder / "net" / "a.pth").write_bytes(b"x")
    assert find_weights("net/a.pth") == folder / "net" / "a.pth"


def test_folder_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISION3D_WEIGHTS", "/nowhere/weights")
    with pytest.raises(ConfigError, match="VISION3D_WEIGHTS=/nowhere/weights: no such folder"):
        find_weights("net/a.pth")


def test_wheel_is_searched_without_importing_it(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path_factory.mktemp("site")
    (site / "wheel_with_net" / "weights").mkdir(parents=True)
    (site / "wheel_with_net" / "__init__.py").write_text("raise ImportError('needs torchvision')")
    (site / "wheel_with_net" / "weights" / "net.pt").write_bytes(b"x")
    monkeypatch.syspath_prepend(str(site))
    found = find_weights("net/net.pt", ("wheel_with_net", "weights/net.pt"))
    assert found == site / "wheel_with_net" / "weights" / "net.pt"
    assert "wheel_with_net" not in sys.modules
    assert find_weights("net/net.pt", ("wheel_that_is_not_there", "net.pt")) is None
    (folder / "net.pt").write_bytes(b"x")
    assert find_weights("net/net.pt", ("wheel_with_net", "weights/net.pt")) == folder / "net.pt"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html>\xc3\xa9", "text file"),
        (b"404: Not Found\n", "text file"),
        (b"", "cannot be read as network weights"),
        (b"PK\x03\x04" + bytes(100), "cannot be read as network weights"),
    ],
)
def test_file_that_is_no_weights_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_weights(tmp_path / "net.pth")


def test_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(nn.Linear(64, 64).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="cannot be read"):
        read_weights(path)


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed",)


def test_code_in_a_weight_file_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Payload()}, "net.pth")
    with pytest.raises(DataError):
        read_weights(tmp_path / "net.pth")
    assert not (tmp_path / "executed").exists()


def test_something_else_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "net.pth")
    with pytest.raises(DataError, match="does not hold a dict of tensors"):
        read_weights(tmp_path / "net.pth")


@pytest.mark.parametrize("form", ["plain", "nested", "safetensors"])
def test_weights_arrive_unchanged(tmp_path: Path, form: str) -> None:
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    path = tmp_path / ("net.safetensors" if form == "safetensors" else "net.pth")
    if form == "safetensors":
        from safetensors.torch import save_file

        save_file(source.state_dict(), path)
    else:
        torch.save(source.state_dict() if form == "plain" else {"state_dict": source.state_dict()}, path)
    load_weights(target, path, "linear")
    assert torch.equal(source.weight, target.weight)
    assert torch.equal(source.bias, target.bias)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (nn.Linear(4, 2), r"'weight' is \(2, 4\) instead of \(2, 3\)"),
        (nn.Linear(3, 2, bias=False), "'bias' is missing"),
        (nn.Bilinear(3, 3, 2), "'weight' is"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path: Path, other: nn.Module, message: str) -> None:
    torch.save(other.state_dict(), tmp_path / "net.pth")
    with pytest.raises(DataError, match=message):
        load_weights(nn.Linear(3, 2), tmp_path / "net.pth", "linear")


def test_extra_tensors_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "net.pth")
    with pytest.raises(DataError, match="'bias' is not part of it"):
        load_weights(nn.Linear(3, 2, bias=False), tmp_path / "net.pth", "linear")


def test_buffers_a_module_computes_itself_may_be_absent(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2, bias=False).state_dict(), tmp_path / "net.pth")
    load_weights(nn.Linear(3, 2), tmp_path / "net.pth", "linear", own=("bias",))


def test_fingerprint_follows_the_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"one")
    second.write_bytes(b"two")
    assert fingerprint(first) == fingerprint(first) != fingerprint(second)
    assert len(fingerprint(first)) == 16
