# SPDX-License-Identifier: Apache-2.0
"""MinkUNet: standard widths and depths of the sparse U-Net of Choy et al., "4D Spatio-Temporal ConvNets" (CVPR 2019).

The numbers are those of MinkowskiEngine's published examples; parameters for 3 input and 20 output channels in 3D:
14A 8.0 M, 18A 15.5 M, 34C 37.9 M. ``vision3d.nn.names`` says how published weights are loaded.
"""

from __future__ import annotations

from vision3d.nn.choices import Activation, Norm
from vision3d.nn.unet import SparseUNet

#: Residual blocks per level: four on the way down, four on the way up.
DEPTHS = {
    "14": (1, 1, 1, 1, 1, 1, 1, 1),
    "18": (2, 2, 2, 2, 2, 2, 2, 2),
    "34": (2, 3, 4, 6, 2, 2, 2, 2),
    "50": (2, 3, 4, 6, 2, 2, 2, 2),
    "101": (2, 3, 4, 23, 2, 2, 2, 2),
}
#: Widths of the way up; the way down is 32, 64, 128, 256 for all.
DECODER_CHANNELS = {
    "14": (256, 128, 96, 96),
    "14A": (128, 128, 96, 96),
    "14B": (128, 128, 128, 128),
    "14C": (192, 192, 128, 128),
    "14D": (384, 384, 384, 384),
    "18": (256, 128, 96, 96),
    "18A": (128, 128, 96, 96),
    "18B": (128, 128, 128, 128),
    "18D": (384, 384, 384, 384),
    "34": (256, 128, 96, 96),
    "34A": (256, 128, 64, 64),
    "34B": (256, 128, 64, 32),
    "34C": (256, 128, 96, 96),
    "50": (256, 128, 96, 96),
    "101": (256, 128, 96, 96),
}


class MinkUNet(SparseUNet):
    """U-Net over strides 1 to 16 with k2 s2 convolutions down and up; output sites are the input's.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output; None: no head.
        variant: depth and widths, a key of ``DECODER_CHANNELS``: "14A", "18A", "34C", ...; 50 and 101 have bottlenecks.
        ndim: number of spatial axes.
        stem_kernel_size: of the first convolution.
        norm: "batch", "instance", "layer", "none", or a function of the number of channels.
        activation: "relu", "leaky_relu", "gelu", "silu", "none", or a function without arguments.

    Raises:
        ValueError: no such variant.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None,
        variant: str = "34C",
        ndim: int = 3,
        stem_kernel_size: int = 5,
        norm: Norm = "batch",
        activation: Activation = "relu",
    ) -> None:
        if variant not in DECODER_CHANNELS:
            raise ValueError(f"unknown variant {variant!r}; there are: {', '.join(DECODER_CHANNELS)}")
        depth = variant.rstrip("ABCD")
        super().__init__(
            in_channels,
            out_channels,
            channels=(32, 32, 64, 128, 256),
            decoder_channels=DECODER_CHANNELS[variant],
            blocks=(0, *DEPTHS[depth][:4]),
            decoder_blocks=DEPTHS[depth][4:],
            ndim=ndim,
            stem_kernel_size=stem_kernel_size,
            block="bottleneck" if depth in ("50", "101") else "basic",
            norm=norm,
            activation=activation,
        )
        self.variant = variant
