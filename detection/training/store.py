# SPDX-License-Identifier: Apache-2.0
"""Networks in a model folder: ``NAME.safetensors`` has the weights, ``NAME.json`` says what they are and how they came.

The architecture follows from the model's configuration, which the runner keeps beside them. Nothing is executed, and
files that are damaged or belong to another network are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from vision3d.atomic import whole_file
from vision3d.errors import DataError
from vision3d.weights import fingerprint, load_weights

SCHEMA = 1


def save_network(
    folder: Path, name: str, net: nn.Module, method: str, classes: tuple[str, ...], facts: Mapping[str, Any]
) -> None:
    """Write a network into an existing folder.

    Args:
        name: of the files, e.g. ``detector``.
        method: what kind of network it is; :func:`load_network` wants the same.
        classes: names of the classes that its outputs stand for.
        facts: JSON-able, kept beside the weights.
    """
    path = folder / f"{name}.safetensors"
    save_file({key: tensor.detach().cpu().contiguous() for key, tensor in net.state_dict().items()}, path)
    write_document(folder, name, method, classes, fingerprint(path), facts)


def write_document(
    folder: Path, name: str, method: str, classes: tuple[str, ...], weights: str, facts: Mapping[str, Any]
) -> None:
    """Write ``NAME.json`` alone; ``weights`` is the fingerprint of the file beside it, empty where there is none."""
    document = {
        "schema": SCHEMA,
        "method": method,
        "classes": list(classes),
        "boxes": "cx, cy, w, h, theta; pixels, radians, y down, clockwise on screen, le90",
        "weights": weights,
        "facts": dict(facts),
    }
    with whole_file(folder / f"{name}.json") as file:
        file.write((json.dumps(document, indent=2) + "\n").encode())


def read_document(folder: Path, name: str, method: str) -> dict[str, Any]:
    """What ``NAME.json`` says.

    Raises:
        DataError: it is missing, damaged, of another version, or of another method.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        raise DataError(folder, f"holds no {name}: {path.name} is missing; make one with `vision3d fit`")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read as JSON ({error})") from error
    kinds = {"schema": int, "method": str, "classes": list, "weights": str, "facts": dict}
    if not isinstance(document, dict) or any(not isinstance(document.get(k), kind) for k, kind in kinds.items()):
        raise DataError(path, f"does not describe a network: it needs {', '.join(kinds)}")
    if document["schema"] != SCHEMA:
        raise DataError(path, f"has schema {document['schema']}, and this version of vision3d reads {SCHEMA}")
    if document["method"] != method:
        raise DataError(
            path,
            f"describes a network of '{document['method']}', not of '{method}'; name its method, e.g. by "
            f"--labeller.method {document['method']}",
        )
    return document


def fill_network(net: nn.Module, folder: Path, name: str, document: Mapping[str, Any]) -> nn.Module:
    """Load the stored weights into a freshly built network, and put it into eval mode.

    Raises:
        DataError: the weights are damaged, not finite, or of another architecture.
    """
    path = folder / f"{name}.safetensors"
    load_weights(net, path, f"{document['method']} with these options")
    if fingerprint(path) != document["weights"]:
        raise DataError(path, f"is not the file that {name}.json was written for; fetch both again")
    if not all(bool(value.isfinite().all()) for value in net.state_dict().values() if value.is_floating_point()):
        raise DataError(path, "holds weights that are not finite: the training diverged")
    return net.eval()
