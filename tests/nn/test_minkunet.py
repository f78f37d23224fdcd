# SPDX-License-Identifier: Apache-2.0
"""MinkUNet: parameter counts of the published plans, and levels."""

from __future__ import annotations

import pytest
import torch
from sparse_clouds import parameters, random_cloud

from vision3d.nn import MinkUNet
from vision3d.nn.minkunet import DECODER_CHANNELS

#: (3D, 2D) with 3 input and 20 output channels: counted on MinkowskiEngine's examples/minkunet.py, its layers replaced
#: by holders of parameters of the same shapes.
PUBLISHED = {
    "14": (11_580_852, 4_182_068),
    "14A": (8_024_500, 2_886_708),
    "14B": (8_961_588, 3_225_780),
    "14C": (11_919_924, 4_308_148),
    "14D": (43_315_764, 15_690_932),
    "18": (21_704_244, 7_559_348),
    "18A": (15_493_172, 5_378_740),
    "18B": (17_204_660, 5_976_116),
    "18D": (79_874_484, 27_882_548),
    "34": (37_856_052, 12_946_868),
    "34A": (36_607_412, 12_509_236),
    "34B": (36_226_484, 12_376_116),
    "34C": (37_856_052, 12_946_868),
    "50": (31_763_444, 16_328_308),
    "101": (70_809_588, 35_320_436),
}


def by_hand(variant: str, depths: tuple[int, ...], ndim: int, in_channels: int = 3, out_channels: int = 20) -> int:
    """Parameters of a basic-block plan, added up layer by layer."""
    down, up = (32, 64, 128, 256), DECODER_CHANNELS[variant]
    k2, k3 = 2**ndim, 3**ndim

    def blocks(width: int, planes: int, depth: int) -> int:
        total = 0
        for _ in range(depth):
            total += k3 * (width * planes + planes * planes) + 4 * planes
            total += width * planes + 2 * planes if width != planes else 0
            width = planes
        return total

    total = 5**ndim * in_channels * 32 + 64
    width = 32
    for planes, depth in zip(down, depths[:4]):
        total += k2 * width * width + 2 * width + blocks(width, planes, depth)
        width = planes
    for planes, depth, skip in zip(up, depths[4:], (128, 64, 32, 32)):
        total += k2 * width * planes + 2 * planes + blocks(planes + skip, planes, depth)
        width = planes
    return total + width * out_channels + out_channels


@pytest.mark.parametrize("variant", DECODER_CHANNELS)
def test_parameters_are_those_of_the_published_plans(variant: str) -> None:
    for ndim, expected in zip((3, 2), PUBLISHED[variant]):
        with torch.device("meta"):
            assert parameters(MinkUNet(3, 20, variant, ndim=ndim)) == expected


@pytest.mark.parametrize(
    ("variant", "depths"),
    [("14A", (1,) * 8), ("18A", (2,) * 8), ("34C", (2, 3, 4, 6, 2, 2, 2, 2))],
)
def test_parameters_added_up_by_hand(variant: str, depths: tuple[int, ...]) -> None:
    assert [by_hand(variant, depths, ndim) for ndim in (3, 2)] == list(PUBLISHED[variant])


@pytest.mark.parametrize("ndim", [2, 3])
def test_five_levels_and_back(ndim: int) -> None:
    torch.manual_seed(0)
    net = MinkUNet(3, 7, "14A", ndim=ndim, stem_kernel_size=3).eval()
    x = random_cloud(60, ndim=ndim, extent=40)
    with torch.no_grad():
        levels = net.encode(x)
        y = net.head(net.decode(levels))
    assert [level.stride[0] for level in levels] == [1, 2, 4, 8, 16]
    assert [level.n_channels for level in levels] == [32, 32, 64, 128, 256]
    assert torch.equal(y.coords, x.coords) and y.n_channels == 7


def test_maps_are_built_once_per_level() -> None:
    """Residual blocks share the level's 3x3 map, and the way up takes the maps of the way down."""
    net = MinkUNet(3, 7, "14A", stem_kernel_size=5).eval()
    x = random_cloud(60, extent=40)
    with torch.no_grad():
        net(x)
    # Stem, blocks of the last level, and the strided map.
    assert x.sites.builds == 3
    with torch.no_grad():
        net(x)
    assert x.sites.builds == 3


def test_unknown_variant_is_named() -> None:
    with pytest.raises(ValueError, match="unknown variant '18C'; there are: 14, 14A"):
        MinkUNet(3, 20, "18C")
