# SPDX-License-Identifier: Apache-2.0
"""Flow networks by name, and as a folder: ``network.safetensors`` has the weights, ``network.json`` says what they are.

Nothing in the folder is executed, and a folder that is damaged or holds another method is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from scene_flow.networks.config import NetworkConfig, architecture_of, with_architecture
from scene_flow.networks.flot import Flot
from scene_flow.networks.sctn import Sctn
from vision3d.errors import ConfigError, DataError
from vision3d.weights import fingerprint, load_weights

WEIGHTS, FACTS = "network.safetensors", "network.json"
SCHEMA = 1

Network = Sctn | Flot


def build_network(method: str, config: NetworkConfig) -> Network:
    """A fresh network; its weights come from torch's random generator.

    Raises:
        ValueError: no such method.
    """
    if method == "sctn":
        return Sctn(config)
    if method == "flot":
        return Flot(config)
    raise ValueError(f"unknown network {method!r}; there are: sctn, flot")


def save_network(folder: Path, net: Network, facts: Mapping[str, Any]) -> None:
    """Write a network that :func:`build_network` made into an existing folder.

    Args:
        folder: where to.
        net: an ``Sctn`` or a ``Flot``.
        facts: JSON-able facts to keep beside the weights.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    document = {
        "schema": SCHEMA,
        "method": _method_of(net),
        "architecture": architecture_of(net.config),
        "weights": fingerprint(folder / WEIGHTS),
        "facts": dict(facts),
    }
    (folder / FACTS).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def load_network(folder: Path, method: str, config: NetworkConfig) -> Network:
    """The network that :func:`save_network` wrote, in eval mode; for ``flot`` also the authors' file of weights.

    Args:
        folder: of the network.
        method: ``sctn`` or ``flot``.
        config: options that may change from run to run; the architecture is the stored network's, whatever they say.

    Raises:
        DataError: the folder holds no network, another method's, one of a newer version, or damaged files.
    """
    if folder.is_file() and method == "flot":
        return _with_facts(Flot.from_weights(folder, config), {"weights": folder.name})
    document = _document(folder)
    if document["method"] != method:
        raise DataError(folder, f"holds a network of {document['method']}, not of {method}")
    try:
        config = with_architecture(config, document["architecture"])
    except ConfigError as error:
        raise DataError(folder / FACTS, str(error)) from error
    net = build_network(method, config)
    load_weights(net, folder / WEIGHTS, f"{method} as {FACTS} describes it")
    if fingerprint(folder / WEIGHTS) != document["weights"]:
        raise DataError(folder / WEIGHTS, f"is not the file that {FACTS} was written for; fetch both again")
    if not all(bool(value.isfinite().all()) for value in net.state_dict().values() if value.is_floating_point()):
        raise DataError(folder / WEIGHTS, "holds weights that are not finite: the training diverged")
    return _with_facts(net, document["facts"])


def describe_network(net: nn.Module) -> dict[str, Any]:
    """JSON-able facts about a network, in the order they are to be printed; histories are left out."""
    assert isinstance(net, (Sctn, Flot))
    return {
        "network": _method_of(net),
        "parameters": sum(p.numel() for p in net.parameters()),
        **architecture_of(net.config),
        **{name: value for name, value in vars(net).get("facts", {}).items() if not isinstance(value, (list, dict))},
    }


def _method_of(net: Network) -> str:
    return "flot" if isinstance(net, Flot) else "sctn"


def _with_facts(net: Network, facts: Mapping[str, Any]) -> Network:
    """The network in eval mode, carrying what was stored beside it."""
    vars(net)["facts"] = dict(facts)
    return net.eval()


def _document(folder: Path) -> dict[str, Any]:
    path = folder / FACTS
    if not folder.is_dir():
        raise DataError(folder, "no such folder of a network; make one with `vision3d fit`")
    if not path.is_file():
        raise DataError(folder, f"holds no network: {FACTS} is missing; make one with `vision3d fit`")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read as JSON ({error})") from error
    kinds = {"schema": int, "method": str, "architecture": dict, "weights": str, "facts": dict}
    if not isinstance(document, dict) or any(not isinstance(document.get(k), kind) for k, kind in kinds.items()):
        raise DataError(path, f"does not describe a network: it needs {', '.join(kinds)}")
    if document["schema"] != SCHEMA:
        raise DataError(path, f"has schema {document['schema']}, and this version of vision3d reads {SCHEMA}")
    return document
