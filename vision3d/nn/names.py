# SPDX-License-Identifier: Apache-2.0
"""What published nets call the parameters of ours: functions for ``rename=`` of ``vision3d.sparse.compat``.

::

    net = SparseResNet(3, depth=18)
    net.load_state_dict(compat.from_dense(state, net, rename=names.torchvision))

    net = MinkUNet(3, 20, "34C")
    net.load_state_dict(compat.from_minkowski(state, net, rename=names.minkowski, axes="reversed"))

    net = VoxelNetEncoder(4)
    net.load_state_dict(compat.from_spconv(state, net, rename=names.openpcdet))
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from re import Match

Rule = str | Callable[[Match[str]], str]

_MINKOWSKI: dict[str, Rule] = {
    r"conv0p1s1\.": "stem.conv.",
    r"bn0\.": "stem.norm.",
    r"conv([1-4])p\d+s2\.": lambda m: f"down.{int(m[1]) - 1}.conv.",
    r"bn([1-4])\.": lambda m: f"down.{int(m[1]) - 1}.norm.",
    r"block([1-4])\.": lambda m: f"encoder.{m[1]}.",
    r"convtr([4-7])p\d+s2\.": lambda m: f"up.{int(m[1]) - 4}.conv.",
    r"bntr([4-7])\.": lambda m: f"up.{int(m[1]) - 4}.norm.",
    r"block([5-8])\.": lambda m: f"decoder.{int(m[1]) - 5}.",
    r"final\.": "head.0.",
}
_OPENPCDET: dict[str, Rule] = {
    r"conv_(input|out)\.0\.": r"conv_\1.conv.",
    r"conv_(input|out)\.1\.": r"conv_\1.norm.",
    # A residual block has names for its layers, a plain one numbers.
    r"conv([1-4])\.(\d)\.conv": lambda m: f"stages.{int(m[1]) - 1}.{m[2]}.conv",
    r"conv([1-4])\.(\d)\.bn": lambda m: f"stages.{int(m[1]) - 1}.{m[2]}.norm",
    r"conv([1-4])\.(\d)\.0\.": lambda m: f"stages.{int(m[1]) - 1}.{m[2]}.conv.",
    r"conv([1-4])\.(\d)\.1\.": lambda m: f"stages.{int(m[1]) - 1}.{m[2]}.norm.",
}


def torchvision(name: str) -> str | None:
    """``SparseResNet`` from torchvision's ResNets, without their classifier."""
    if name.startswith("fc."):
        return None
    return re.sub(r"\bbn(\d)\.", r"norm\1.", name)


def minkowski(name: str) -> str | None:
    """``MinkUNet`` from MinkowskiEngine's MinkUNets, and from the Res16UNets of the same authors."""
    return _first(_MINKOWSKI, name) or name


def openpcdet(name: str) -> str | None:
    """``VoxelNetEncoder`` from OpenPCDet's VoxelBackBone8x and VoxelResBackBone8x, or from a whole detector: what is
    not of its 3D backbone is dropped."""
    return _first(_OPENPCDET, name.removeprefix("backbone_3d."))


def _first(rules: Mapping[str, Rule], name: str) -> str | None:
    """The name after the first rule that fits its beginning."""
    for pattern, rule in rules.items():
        found = re.match(pattern, name)
        if found:
            return (rule(found) if callable(rule) else found.expand(rule)) + name[found.end() :]
    return None
