# SPDX-License-Identifier: Apache-2.0
"""The map: landmarks with a descriptor field each, what was observed of them, and the images they came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from relocalization.descriptor_storage import dequantize, quantize
from relocalization.node_storage import pack_nodes, unpack_nodes
from relocalization.tracks import Tracks
from vision3d.errors import DataError
from vision3d.geometry.cameras import Camera
from vision3d.voxels.grids import VoxelGrids
from vision3d.voxels.marching import Marching

Float = NDArray[np.float64]

FIELDS, OBSERVATIONS, INDEX = "map.safetensors", "observations.safetensors", "images.json"
SCHEMA = 1


@dataclass(frozen=True, eq=False)
class MapImages:
    """The images a map was made of: names (I,), cameras, poses (I, 4, 4)."""

    names: tuple[str, ...]
    cameras: tuple[Camera, ...]
    T_world_cam: Float

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Lens:
    """A camera as the data set gives it, and the same camera with the distortion that the tracks show."""

    given: Camera
    fitted: Camera

    def of(self, camera: Camera) -> Camera:
        """The fitted camera for the given one, at any size of the same view; any other camera unchanged."""
        if not _same(camera, self.given.resized(camera.width, camera.height)):
            return camera
        same_size = (camera.width, camera.height) == (self.fitted.width, self.fitted.height)
        return self.fitted if same_size else self.fitted.resized(camera.width, camera.height)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict from which :meth:`from_json` restores the lens."""
        return {"given": self.given.to_json(), "fitted": self.fitted.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Lens:
        """The inverse of :meth:`to_json`."""
        return cls(Camera.from_json(data["given"]), Camera.from_json(data["fitted"]))


@dataclass(frozen=True, eq=False)
class LandmarkMap:
    """N landmarks.

    Attributes:
        points: (N, 3) float64, world, metres.
        covariance: (N, 3, 3) of the points, metres^2.
        grids: descriptor fields; box i is centred on point i.
        tracks: what was observed: track i belongs to landmark i.
        descriptors: (M, C) float16, the descriptor of each observation; stored in eight bits.
        images: the map images that ``tracks.image`` refers to.
        extractor: fingerprint of the extractor; descriptors of others must not be compared.
        feature_name: its name, e.g. ``alike-n``.
        retrieval: arrays of the retrieval index.
        marching: how the fields were fitted and must be rendered.
        lens: the distortion found while mapping, to be applied to queries of the same camera; None without.
        facts: small JSON-able facts about how the map was made.
    """

    points: Float
    covariance: Float
    grids: VoxelGrids
    tracks: Tracks
    descriptors: NDArray[np.float16]
    images: MapImages
    extractor: str
    feature_name: str
    retrieval: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    marching: Marching = field(default_factory=Marching)
    lens: Lens | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def channels(self) -> int:
        return self.grids.channels

    def save(self, folder: Path) -> None:
        """Write ``map.safetensors``, ``observations.safetensors`` and ``images.json`` into an existing folder."""
        fields = {
            "points": self.points,
            "covariance": self.covariance.astype(np.float32),
            "half_sizes": self.grids.half_sizes.numpy(),
            "density": self.grids.density.numpy(),
            **{f"field.{k}": v for k, v in pack_nodes(self.grids.values.flatten(1, 3).numpy()).items()},
            **({} if self.grids.axes is None else {"axes": self.grids.axes.numpy()}),
        }
        levels, peaks = quantize(self.descriptors)
        observations = {
            "start": self.tracks.start.astype(np.int32),
            "image": self.tracks.image.astype(np.int32),
            "keypoint": self.tracks.keypoint.astype(np.int32),
            "uv_px": self.tracks.uv_px.astype(np.float32),
            "descriptors": levels,
            "descriptor_peaks": peaks,
            **{f"retrieval.{k}": v for k, v in self.retrieval.items()},
        }
        index = {
            "schema": SCHEMA,
            "extractor": self.extractor,
            "feature_name": self.feature_name,
            "marching": asdict(self.marching),
            "lens": None if self.lens is None else self.lens.to_json(),
            "facts": dict(self.facts),
            "images": [
                {
                    "name": name,
                    "camera": c.to_json(),
                    "T_world_cam": T.tolist(),
                }
                for name, c, T in zip(self.images.names, self.images.cameras, self.images.T_world_cam)
            ],
        }
        save_file({k: np.ascontiguousarray(v) for k, v in fields.items()}, folder / FIELDS)
        save_file({k: np.ascontiguousarray(v) for k, v in observations.items()}, folder / OBSERVATIONS)
        (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> LandmarkMap:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: a file is missing, damaged, or of another schema.
        """
        fields, observations = (_read(folder / name) for name in (FIELDS, OBSERVATIONS))
        index_path = folder / INDEX
        try:
            index = json.loads(index_path.read_text(encoding="utf-8"))
            if index["schema"] != SCHEMA:
                raise DataError(index_path, f"map schema {index['schema']}, this version reads {SCHEMA}: fit it anew")
            images = MapImages(
                tuple(entry["name"] for entry in index["images"]),
                tuple(Camera.from_json(entry["camera"]) for entry in index["images"]),
                np.array([entry["T_world_cam"] for entry in index["images"]], dtype=np.float64).reshape(-1, 4, 4),
            )
            loaded = cls(
                points=fields["points"],
                covariance=fields["covariance"].astype(np.float64),
                grids=VoxelGrids(
                    torch.from_numpy(fields["points"]),
                    torch.from_numpy(fields["half_sizes"]),
                    torch.from_numpy(fields["density"]),
                    _field_values(fields),
                    torch.from_numpy(fields["axes"]) if "axes" in fields else None,
                ),
                tracks=Tracks(
                    observations["start"].astype(np.int64),
                    observations["image"].astype(np.int64),
                    observations["keypoint"].astype(np.int64),
                    observations["uv_px"].astype(np.float64),
                ),
                descriptors=dequantize(observations["descriptors"], observations["descriptor_peaks"]),
                images=images,
                extractor=index["extractor"],
                feature_name=index["feature_name"],
                retrieval={k[10:]: v for k, v in observations.items() if k.startswith("retrieval.")},
                marching=Marching(**index["marching"]),
                lens=None
                if index["lens"] is None
                else Lens(*(Camera.from_json(index["lens"][k]) for k in ("given", "fitted"))),
                facts=index["facts"],
            )
            loaded._require_consistent()
            return loaded
        except OSError as e:
            raise DataError(index_path, f"cannot be read ({e.strerror}): is this a map folder?") from e
        except (KeyError, TypeError, ValueError) as e:
            raise DataError(folder, f"not a complete favor map ({type(e).__name__}: {e}); fit it anew") from e

    def _require_consistent(self) -> None:
        """Raise ValueError where the files do not belong together."""
        n, m, tracks = len(self.points), len(self.tracks.image), self.tracks
        sizes = [len(tracks.uv_px), len(tracks.keypoint), len(self.descriptors)]
        wrong = sizes != [m, m, m]
        if wrong or len(tracks) != n or tracks.start[-1] != m or (np.diff(tracks.start) < 1).any():
            raise ValueError(f"{OBSERVATIONS} does not hold the observations of {n} landmarks")
        if len(self.covariance) != n or self.descriptors.shape[1] != self.channels:
            raise ValueError(f"arrays of {FIELDS} and {OBSERVATIONS} disagree in size")
        if m and not 0 <= tracks.image.min() <= tracks.image.max() < len(self.images):
            raise ValueError(f"{OBSERVATIONS} refers to images that {INDEX} does not list")

    def bytes_per_landmark(self, folder: Path) -> dict[str, float]:
        """Bytes on disk per landmark, by file."""
        return {name: (folder / name).stat().st_size / max(1, len(self)) for name in (FIELDS, OBSERVATIONS, INDEX)}


def _same(a: Camera, b: Camera) -> bool:
    """Whether two cameras of one size differ by no more than the rounding of resizing there and back."""
    first, second = ((c.fx, c.fy, c.cx, c.cy) for c in (a, b))
    return a.distortion == b.distortion and np.allclose(first, second, rtol=1e-6, atol=1e-6 * a.width)


def _field_values(fields: dict[str, NDArray[Any]]) -> torch.Tensor:
    """(N, R, R, R, C) from the packed nodes; R is the density's."""
    resolution = fields["density"].shape[-1]
    packed = {k[6:]: v for k, v in fields.items() if k.startswith("field.")}
    values = torch.from_numpy(unpack_nodes(packed, resolution**3))
    return values.reshape(len(values), resolution, resolution, resolution, -1)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        arrays: dict[str, NDArray[Any]] = load_file(path)
    except FileNotFoundError as e:
        raise DataError(path, "missing: is this a map folder made by `vision3d fit favor`?") from e
    except (SafetensorError, OSError) as e:
        raise DataError(path, f"damaged ({e}); fit the map anew") from e
    return arrays
