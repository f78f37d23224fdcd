# SPDX-License-Identifier: Apache-2.0
"""Backbones and blocks that tasks share."""

from vision3d.nn import names
from vision3d.nn.blocks import BasicBlock, Bottleneck, ConvBlock
from vision3d.nn.feature_pyramid import FeaturePyramid
from vision3d.nn.image_encoder import ImageEncoder
from vision3d.nn.minkunet import MinkUNet
from vision3d.nn.point_transformer import GridPooling, GridUnpooling, PointTransformer
from vision3d.nn.resnet import SparseResNet
from vision3d.nn.unet import SparseUNet
from vision3d.nn.voxelnet import VoxelNetEncoder
from vision3d.nn.window_attention import PointTransformerBlock, SerializedAttention

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "ConvBlock",
    "FeaturePyramid",
    "GridPooling",
    "GridUnpooling",
    "ImageEncoder",
    "MinkUNet",
    "PointTransformer",
    "PointTransformerBlock",
    "SerializedAttention",
    "SparseResNet",
    "SparseUNet",
    "VoxelNetEncoder",
    "names",
]
