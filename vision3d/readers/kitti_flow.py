# SPDX-License-Identifier: Apache-2.0
"""KITTI Scene Flow 2015, the raw ``training`` folder: disparity of both frames and optical flow become two clouds.

A pixel that is known in all three maps is a point of the first cloud and, where its flow leads, of the second: row i of
the target is exactly where row i of the source went, as in the field's prepared copy of this data. Options after '?':

- ``maps=occ|noc``: with (default, as published) or without pixels that leave the second image;
- ``ground=1`` keeps points below -1.4 m in both frames; by default they are dropped;
- ``list=FILE``: the devkit's training mapping; scenes with an empty line, those without raw data, are left out. Tables
  of the field are over the 142 scenes that remain;
- ``points=8192&seed=0`` draws that many points from each cloud, independently.

Axes: camera. Who moves: ``obj_map/`` where that folder is there, else it is derived, see ``moving_points``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import DataError
from vision3d.readers import _flow_kitti as kitti
from vision3d.readers._common import require_split
from vision3d.readers._flow_pairs import PairReader, PairRecord, Truth, check_pairs, drawn
from vision3d.readers._poses import read_text
from vision3d.readers._source import bounded, flag, one_root, parse_source, score
from vision3d.types.clouds import CloudPair, FlowTruth

ALL_SCENES = 200


def _maps(text: str) -> str:
    if text not in ("occ", "noc"):
        raise ValueError("say occ or noc")
    return text


OPTIONS = {
    "maps": _maps,
    "ground": flag,
    "list": Path,
    "points": bounded(int, 0, 10_000_000),
    "seed": bounded(int, 0, 2**32 - 1),
}


class KittiFlowReader(PairReader):
    """The scenes of one training folder in order of their numbers."""

    def __init__(self, source: str, config: DataConfig) -> None:
        _, options = parse_source(source, OPTIONS)
        require_split(config, "KITTI Scene Flow")
        self.root = one_root(source, _is_training, "KITTI Scene Flow (disp_occ_0/, disp_occ_1/, flow_occ/, calib_cam/)")
        self.maps = options.get("maps", "occ")
        self.ground = options.get("ground", False)
        self.points, self.seed = options.get("points", 0), options.get("seed", 0)
        first = sorted((self.root / f"disp_{self.maps}_0").glob("*_10.png"))
        if not first:
            raise DataError(self.root / f"disp_{self.maps}_0", "holds no *_10.png")
        records = [self._record(path.stem.removesuffix("_10")) for path in first]
        notes = []
        if "list" in options:
            listed = listed_scenes(options["list"])
            records = [record for record in records if record.name in listed]
            if not records:
                raise DataError(options["list"], f"lists none of the {len(first)} scenes in {self.root}")
        elif len(records) == ALL_SCENES:
            notes.append("published tables are over 142 of these 200 scenes: ?list=DEVKIT_TRAIN_MAPPING leaves them")
        super().__init__("kitti-scene-flow", records, config, notes)

    def _record(self, scene: str) -> PairRecord:
        files = (
            self.root / f"disp_{self.maps}_0" / f"{scene}_10.png",
            self.root / f"disp_{self.maps}_1" / f"{scene}_10.png",
            self.root / f"flow_{self.maps}" / f"{scene}_10.png",
            self.root / "calib_cam" / f"{scene}.txt",
        )
        missing = next((path for path in files if not path.is_file()), None)
        return PairRecord(scene, files, problem=None if missing is None else DataError(missing, "no such file"))

    def _read(self, record: PairRecord) -> tuple[CloudPair, Truth]:
        disparity_0, disparity_1 = kitti.read_disparity(record.files[0]), kitti.read_disparity(record.files[1])
        flow, known = kitti.read_flow(record.files[2])
        P = kitti.read_projection(record.files[3])
        for path, other in ((record.files[1], disparity_1), (record.files[2], known)):
            if other.shape != disparity_0.shape:
                raise DataError(path, f"is of size {other.shape[::-1]}, the first disparity {disparity_0.shape[::-1]}")
        use = known & (disparity_0 > 0) & (disparity_1 > 0)
        v, u = np.nonzero(use)
        uv = np.stack([u, v], axis=1).astype(np.float64)
        first = kitti.unproject(uv, disparity_0[use], P)
        second = kitti.unproject(uv + flow[use], disparity_1[use], P)
        keep = kitti.kept_points(first, second, self.ground)
        if not keep.any():
            raise DataError(record.files[0], "leaves no point within 35 m that is above the ground")
        height, width = disparity_0.shape
        camera = kitti.pinhole(P, width, height)
        rows = drawn(int(keep.sum()), self.points, self.seed, record.name, 0)
        others = drawn(int(keep.sum()), self.points, self.seed, record.name, 1)
        source, target = first[keep][rows].astype(np.float32), second[keep][others].astype(np.float32)
        pair = CloudPair(record.name, source, target, axes="camera", dt_s=0.1, camera=camera)

        def truth() -> FlowTruth:
            # The motion is fitted to all points: the ground, which is dropped here, is most of what stands still.
            objects = self._objects(record.name, use)
            moving, T = kitti.moving_points(first, second, objects, float(P[0, 0]))
            return FlowTruth(
                flow=(second - first)[keep][rows].astype(np.float32),
                valid=np.ones(len(source), dtype=bool),
                points=source,
                axes="camera",
                dt_s=0.1,
                camera=camera,
                dynamic=None if moving is None else moving[keep][rows],
                T_target_source=T,
            )

        return pair, truth

    def _objects(self, scene: str, use: kitti.Bool) -> kitti.Bool | None:
        """(N,) points of moving objects as the data set's ``obj_map`` has them, or None without that folder."""
        path = self.root / "obj_map" / f"{scene}_10.png"
        if not path.is_file():
            return None
        import cv2

        from vision3d.readers._images import decode

        objects = decode(path, cv2.IMREAD_UNCHANGED)
        if objects.shape != use.shape:
            raise DataError(path, f"is of shape {objects.shape}, the disparity of {use.shape}")
        return objects[use] > 0


def listed_scenes(path: Path) -> set[str]:
    """Scenes of a mapping file: line i is scene i, and an empty line is a scene without raw data."""
    lines = read_text(path).splitlines()
    return {f"{index:06d}" for index, line in enumerate(lines) if line.strip()}


def _is_training(folder: Path) -> bool:
    names = ("disp_occ_0", "disp_noc_0")
    return any((folder / name).is_dir() for name in names) and (folder / "calib_cam").is_dir()


def match(source: str) -> float:
    return score(source, _is_training, 0.95)


def check(source: str) -> list[str]:
    return check_pairs(KittiFlowReader, source)


SPEC = ReaderSpec(
    name="kitti-flow",
    summary="KITTI Scene Flow 2015 training folder: disparity and flow maps as pairs of clouds, camera axes",
    samples="CloudPair",
    match=match,
    open=KittiFlowReader,
    card="kitti-scene-flow",
    check=check,
)
