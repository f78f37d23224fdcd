# SPDX-License-Identifier: Apache-2.0
"""Features of the points of one cloud: SCTN's voxel features (VIFE) and its attention over the cloud (PTFE).

Li, Zheng, Giancola, Ghanem, "SCTN: Sparse Convolution-Transformer Network for Scene Flow Estimation", AAAI 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scene_flow.networks.config import NetworkConfig, Size
from scene_flow.networks.local_support import cells_at_most
from scene_flow.networks.neighbours import knn_graph
from scene_flow.networks.set_conv import SetConv
from vision3d.nn import SparseUNet
from vision3d.nn.attention import chunked_attention
from vision3d.sparse import SparseTensor, knn, segment_reduce, voxelize
from vision3d.sparse.interpolate import weighted_rows

NEIGHBOURS = 32  # of interpolation and of graphs


class TooFewPoints(ValueError):
    """A cloud is too small, or its voxels too large, for the network."""


def too_few(points: int, voxels: int, voxel_size_m: float) -> str:
    """What is said about a cloud that fills fewer than 32 voxels."""
    return (
        f"{points} points fill {voxels} voxels of {voxel_size_m:g} m, and the network needs {NEIGHBOURS}; take smaller"
        " voxels (network.voxel_size_m) or a larger cloud"
    )


@dataclass(frozen=True)
class Widths:
    """Channels of a network: U-Net down, U-Net up, features of a point, hidden layer of the position, SetConv."""

    down: tuple[int, int, int, int]
    up: tuple[int, int, int]
    features: int
    position: int
    refinement: tuple[int, int, int]


WIDTHS: dict[Size, Widths] = {
    "full": Widths((64, 64, 128, 128), (128, 128, 128), 64, 32, (32, 64, 128)),
    "small": Widths((16, 32, 32, 48), (32, 32, 32), 32, 16, (16, 32, 32)),
}


class CloudEncoder(nn.Module):
    """Steps 1 to 6: (B, N, 3) metres, camera axes, to (B, N, C) features. Clouds do not see each other.

    Absolute coordinates enter: a cloud in other axes or from another origin is silently worse.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        widths = WIDTHS[config.size]
        self.point_features = SetConvFeatures(widths) if config.features == "setconv" else VoxelFeatures(widths, config)
        self.transformer = PointTransformer(widths, config.max_keys) if config.attention else None

    def forward(self, points: Tensor) -> Tensor:
        """The features of every point.

        Raises:
            TooFewPoints: the cloud fills fewer than 32 voxels.
        """
        features: Tensor = self.point_features(points)  # steps 1 to 4
        if self.transformer is None:
            return features
        return features + self.transformer(points, features)  # steps 5 and 6


class VoxelFeatures(nn.Module):
    """Steps 1 to 4: voxels, sparse U-Net, unit length, back to the points. (B, N, 3) to (B, N, C)."""

    def __init__(self, widths: Widths, config: NetworkConfig) -> None:
        super().__init__()
        self.voxel_size_m = config.voxel_size_m
        self.corner = config.corner
        self.representative = config.representative
        self.unet = SparseUNet(
            in_channels=3,
            out_channels=widths.features,
            channels=widths.down,
            decoder_channels=widths.up,
            blocks=(1, 1, 1, 1),
            decoder_blocks=(1, 1, 1),
            stem_kernel_size=7,
            down_kernel_size=3,
            norm="instance",
            conv_activation=False,
            widen="conv",
            skip="conv",
            merge="after",
            head_channels=(widths.features,),
            out_rule="floor",
        )

    def forward(self, points: Tensor) -> Tensor:
        """The features of every point.

        Raises:
            TooFewPoints: a cloud fills fewer than 32 voxels.
        """
        batch, n = points.shape[:2]
        rows, lengths = points.reshape(-1, 3), [n] * batch
        voxels = voxelize(rows, None, self.voxel_size_m, lengths=lengths, reduce=self.representative).tensor
        self._check(voxels, n)
        voxels = self.unet(voxels).map(_unit_length)
        found = interpolate_to_points(voxels, rows, lengths, self.voxel_size_m, self.corner)
        return found.reshape(batch, n, -1)

    def _check(self, voxels: SparseTensor, n: int) -> None:
        fewest = int(voxels.sites.sample_ptr().diff().min())
        if fewest < NEIGHBOURS:
            raise TooFewPoints(too_few(n, fewest, self.voxel_size_m))


def interpolate_to_points(
    voxels: SparseTensor, points: Tensor, lengths: list[int], voxel_size_m: float, corner: bool = False
) -> Tensor:
    """Step 4: the mean of the 32 nearest voxels' features, weighted by ``1 / (distance + 1e-7)``.

    Args:
        voxels: at least 32 a sample, with C channels.
        points: (P, 3) metres.
        lengths: number of points of each sample.
        voxel_size_m: edge of a voxel.
        corner: distances are to the voxels' lower corners, as in the published code, not to their centres.

    Returns:
        (P, C), differentiable in the features.
    """
    # The corner is half a voxel from the centre: moving the points instead gives the same distances.
    at = points.double() + (voxel_size_m / 2 if corner else 0.0)
    near = knn(voxels, at, NEIGHBOURS, voxel_size=voxel_size_m, lengths=lengths)
    weights = 1 / (near.distances + 1e-7)
    return weighted_rows(voxels.feats, near.rows, weights / weights.sum(1, keepdim=True))


class SetConvFeatures(nn.Module):
    """FLOT's point features in the place of the U-Net's, to compare the two. (B, N, 3) to (B, N, C) of unit length."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        narrow, middle, _ = widths.refinement
        self.layers = nn.ModuleList([SetConv(3, narrow), SetConv(narrow, middle), SetConv(middle, widths.features)])

    def forward(self, points: Tensor) -> Tensor:
        """The features of every point."""
        graph = knn_graph(points, NEIGHBOURS)
        signal = points
        for layer in self.layers:
            signal = layer(signal, graph)
        return _unit_length(signal)


class PointTransformer(nn.Module):
    """Step 5: one head of attention from every point of a cloud to every other, with a code of the position.

    Despite its name (the paper's) it is not vector attention among neighbours.

    Args:
        widths: of the network.
        max_keys: a cloud of more points is looked at through this many cells of it: a cell's points are one key and one
            value, their mean, that counts as often as there are points. Exact up to the cell's extent. 0: no limit.
    """

    def __init__(self, widths: Widths, max_keys: int) -> None:
        super().__init__()
        self.max_keys = max_keys
        self.position = nn.Sequential(
            nn.Linear(3, widths.position),
            nn.BatchNorm1d(widths.position),
            nn.ReLU(),
            nn.Linear(widths.position, widths.features),
            nn.BatchNorm1d(widths.features),
            nn.ReLU(),
        )
        self.query = nn.Linear(widths.features, widths.features, bias=False)
        self.key = nn.Linear(widths.features, widths.features, bias=False)
        self.value = nn.Linear(widths.features, widths.features, bias=False)

    def forward(self, points: Tensor, features: Tensor) -> Tensor:
        """(B, N, C) from (B, N, 3) metres and (B, N, C)."""
        code = self.position(points.flatten(0, 1)).view_as(features)
        placed = features + code
        if not 0 < self.max_keys < points.shape[1]:
            return chunked_attention(self.query(placed), self.key(placed), self.value(placed))
        return torch.cat([self._through_cells(p[None], g[None]) for p, g in zip(points, placed)])

    def _through_cells(self, points: Tensor, placed: Tensor) -> Tensor:
        cell = cells_at_most(points[0], self.max_keys)
        mean = segment_reduce(placed[0], cell, "mean")[None]
        query, key, value = self.query(placed), self.key(mean), self.value(mean)
        # softmax over cells with log(count) added to the logits is softmax over points that share their cell's key.
        # It is added by one more channel, so that any kernel of attention will do.
        scale = query.shape[2] ** -0.5
        count = torch.bincount(cell).to(key).log()[None, :, None] / scale
        query, key = torch.cat([query, torch.ones_like(query[..., :1])], 2), torch.cat([key, count], 2)
        return chunked_attention(query, key, F.pad(value, (0, 1)), scale=scale)[..., :-1]


def _unit_length(features: Tensor) -> Tensor:
    """Rows of length 1, in single precision at least; a row of zeros stays one."""
    wide = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    return F.normalize(wide, dim=-1, eps=1e-12)
