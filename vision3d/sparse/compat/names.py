# SPDX-License-Identifier: Apache-2.0
"""Names of parameters in other engines' state dicts."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

from torch import Tensor, nn

from vision3d.sparse.layers.conv import ConvNd
from vision3d.sparse.layers.norm import SparseBatchNorm, SparseInstanceNorm
from vision3d.sparse.layers.rowwise import SparseLinear

#: Prefixes and what stands in their place ("": nothing; None: the entry is dropped), or a function of a name.
Rename = Mapping[str, str | None] | Callable[[str], str | None]

#: MinkowskiEngine wraps torch's layers: the attribute that holds them.
WRAPPED = {SparseBatchNorm: "bn", SparseLinear: "linear"}
#: A counter spconv may keep beside its weights.
COUNTER = "max_num_voxels_during_training"


def renamed(source: Mapping[str, Tensor], rename: Rename | None) -> dict[str, Tensor]:
    """The entries under their new names.

    Raises:
        TypeError: an entry is not a tensor.
        ValueError: two entries would share a name.
    """
    result: dict[str, Tensor] = {}
    for name, value in source.items():
        if not isinstance(value, Tensor):
            remedy = f"; pass source[{name!r}]" if isinstance(value, Mapping) else ""
            raise TypeError(f"entry {name!r} of the state dict is a {type(value).__name__}, not a tensor{remedy}")
        new = _apply(name, rename)
        if new is None:
            continue
        if new in result:
            raise ValueError(f"rename= gives two entries the name {new!r}")
        result[new] = value
    return result


def our_name(name: str, engine: str, wanted: Container[str]) -> str | None:
    """What an entry is called here; None: it has no counterpart and is not needed."""
    if name in wanted:
        return name
    *path, last = name.split(".")
    if last == COUNTER:
        return None
    if last == "kernel" and engine in ("minkowski", "torchsparse"):
        return ".".join([*path, "weight"])
    if engine == "minkowski" and path and path[-1] in WRAPPED.values():
        short = ".".join([*path[:-1], last])
        return short if short in wanted else name
    return name


def their_name(name: str, engine: str, module: nn.Module) -> str:
    """What the other engine calls an entry of ``module``."""
    path, _, last = name.rpartition(".")
    owner = module.get_submodule(path)
    if last == "weight" and isinstance(owner, ConvNd) and engine in ("minkowski", "torchsparse"):
        return _joined(path, "kernel")
    if engine == "minkowski":
        for kind, attribute in WRAPPED.items():
            if isinstance(owner, kind):
                return _joined(path, attribute, last)
    return name


def is_row(name: str, module: nn.Module) -> bool:
    """Whether MinkowskiEngine gives this (C,) entry of ``module`` a leading axis: (1, C)."""
    path, _, last = name.rpartition(".")
    owner = module.get_submodule(path)
    return isinstance(owner, SparseInstanceNorm) or (isinstance(owner, ConvNd) and last == "bias")


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _apply(name: str, rename: Rename | None) -> str | None:
    if rename is None:
        return name
    if callable(rename):
        return rename(name)
    fitting = [old for old in rename if name == old or name.startswith(f"{old}.")]
    if not fitting:
        return name
    old = max(fitting, key=len)
    new = rename[old]
    return None if new is None else _joined(new, name[len(old) :].lstrip("."))
