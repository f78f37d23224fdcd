# SPDX-License-Identifier: Apache-2.0
"""A network survives its folder, and a folder that is damaged or foreign is refused by one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from scene_flow.networks.config import NetworkConfig, TransportConfig
from scene_flow.networks.store import build_network, describe_network, load_network, save_network
from vision3d.errors import DataError

CONFIG = NetworkConfig(size="small", voxel_size_m=0.2, transport=TransportConfig(iterations=2))
FACTS = {"steps": 12, "loss_m": 0.25, "losses": [[1, 2.0]]}


def trained(method: str = "sctn") -> nn.Module:
    """A network whose weights are not those that it starts with."""
    torch.manual_seed(1)
    net = build_network(method, CONFIG)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return net


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_network(tmp_path, trained(), FACTS)
    return tmp_path


@pytest.mark.parametrize("method", ["sctn", "flot"])
def test_a_network_survives_its_folder(tmp_path: Path, method: str) -> None:
    net = trained(method).eval()
    save_network(tmp_path, net, FACTS)
    back = load_network(tmp_path, method, NetworkConfig())
    state, other = net.state_dict(), back.state_dict()
    assert state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)
    assert not back.training
    cloud = torch.rand(1, 200, 3) * 3
    with torch.no_grad():
        assert torch.equal(net(cloud, cloud + 0.1).flow, back(cloud, cloud + 0.1).flow)


def test_architecture_comes_from_the_folder_and_the_rest_from_the_caller(folder: Path) -> None:
    net: Any = load_network(folder, "sctn", NetworkConfig(local="on", transport=TransportConfig(7, 3.0)))
    c = net.config
    assert (c.size, c.voxel_size_m, c.transport.iterations) == ("small", 0.2, 2)
    assert (c.local, c.transport.radius_m) == ("on", 3.0)


def test_a_network_can_be_described(folder: Path) -> None:
    told = describe_network(load_network(folder, "sctn", NetworkConfig()))
    assert told["network"] == "sctn" and told["size"] == "small" and told["steps"] == 12
    assert told["parameters"] == sum(p.numel() for p in trained().parameters())
    assert "losses" not in told and json.loads(json.dumps(told)) == told


def test_only_tensors_and_json_are_written(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["network.json", "network.safetensors"]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown network 'pointpwc'; there are: sctn, flot"):
        build_network("pointpwc", CONFIG)


def edit(**changes: Any) -> Callable[[Path], None]:
    """Change entries of the description; None removes one."""

    def act(folder: Path) -> None:
        path = folder / "network.json"
        document = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: v for k, v in document.items() if v is not None}))

    return act


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _cut(folder: Path) -> None:
    path = folder / "network.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _other_weights(folder: Path) -> None:
    path = folder / "network.safetensors"
    save_file({name: value + 1 for name, value in load_file(path).items()}, path)


def _garbage(folder: Path) -> None:
    (folder / "network.json").write_text("{not json")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove("network.json"), "holds no network: network.json is missing; make one with `vision3d fit`"),
        (_remove("network.safetensors"), "network.safetensors: no such file of weights"),
        (_garbage, "network.json: cannot be read as JSON"),
        (_cut, "network.safetensors: cannot be read as network weights"),
        (_other_weights, "network.safetensors: is not the file that network.json was written for"),
        (edit(method="flot"), "holds a network of flot, not of sctn"),
        (edit(schema=2), "network.json: has schema 2, and this version of vision3d reads 1"),
        (edit(facts=None), "network.json: does not describe a network"),
        (edit(architecture={"size": "small"}), "network.json: a network is described by size"),
    ],
)
def test_a_damaged_or_foreign_folder_is_refused(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder)
    with pytest.raises(DataError) as error:
        load_network(folder, "sctn", NetworkConfig())
    assert message in str(error.value) and str(folder) in str(error.value) and "\n" not in str(error.value)


def test_weights_of_another_size_are_refused(folder: Path) -> None:
    architecture = json.loads((folder / "network.json").read_text())["architecture"]
    edit(architecture={**architecture, "size": "full"})(folder)
    with pytest.raises(DataError, match=r"another architecture than sctn as network\.json describes it"):
        load_network(folder, "sctn", NetworkConfig())


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    net = trained()
    with torch.no_grad():
        next(net.parameters()).view(-1)[0] = float("nan")
    save_network(tmp_path, net, {})
    with pytest.raises(DataError, match="holds weights that are not finite: the training diverged"):
        load_network(tmp_path, "sctn", NetworkConfig())


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder of a network"):
        load_network(tmp_path / "nothing", "sctn", NetworkConfig())


def test_published_weights_of_flot_are_a_network(weights: Path) -> None:
    net = load_network(weights / "flot" / "model_2048.tar", "flot", NetworkConfig())
    assert sum(p.numel() for p in net.parameters()) == 111_109
    assert describe_network(net)["weights"] == "model_2048.tar"
    with pytest.raises(DataError, match="no such folder of a network"):
        load_network(weights / "flot" / "model_2048.tar", "sctn", NetworkConfig())
