# SPDX-License-Identifier: Apache-2.0
"""The "s" data of scene flow: folders with ``pc1.npy`` and ``pc2.npy``, where row i of the second is where row i went.

This is the preparation of HPLFlowNet, of FlyingThings3D without occlusion and of KITTI. What is done on loading follows
from the folder's name, as published:

- ``FlyingThings3D_subset_processed_35m/{train,val}``: x and z are negated. Splits: ``test`` is what is called val on
  disk; of the sorted train folder, 2000 evenly spaced scenes are ``val`` and the others ``train``. Scene 0004781 has
  8144 points: it is left out and the first scene is given twice.
- ``KITTI_processed_occ_final``: points below -1.4 m in both frames (the ground) and points not nearer than 35 m in both
  are dropped. Tables are over the 142 scenes with raw data: ``?list=FILE``, the devkit's training mapping, picks them.
  A file ``KITTI_mapping.txt`` in the folder or above it is used by itself.
- any other folder: taken as it is, in camera axes.

Options: ``flip=0|1`` and ``crop=0|1`` overrule the name (``crop`` is KITTI's rule), ``ground=1`` keeps the ground,
``points=8192&seed=0`` draws that many rows from each cloud independently, which is the published protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.geometry.cameras import Camera
from vision3d.readers._common import require_split
from vision3d.readers._flow_kitti import kept_points, moving_points
from vision3d.readers._flow_pairs import (
    Float32,
    PairReader,
    PairRecord,
    Truth,
    as_cloud,
    check_pairs,
    drawn,
    load_arrays,
    score_any,
)
from vision3d.readers._source import bounded, find_roots, flag, parse_source, split_source
from vision3d.readers.kitti_flow import listed_scenes
from vision3d.types.clouds import CloudPair, FlowTruth

FLYING, KITTI = "FlyingThings3D_subset_processed_35m", "KITTI_processed_occ_final"
FLYING_CAMERA = Camera("PINHOLE", 960, 540, (1050.0, 1050.0, 479.5, 269.5))
TRAIN_SCENES, VALIDATION_SCENES, TEST_SCENES = 19640, 2000, 3824
FLIP = np.array([-1, 1, -1], dtype=np.float32)
SMALL_SCENE = "0004781"
DATA_SETS = {FLYING: "flyingthings3d-s", KITTI: "kitti-s"}

OPTIONS: dict[str, Callable[[str], Any]] = {
    "flip": flag,
    "crop": flag,
    "ground": flag,
    "list": Path,
    "points": bounded(int, 0, 10_000_000),
    "seed": bounded(int, 0, 2**32 - 1),
}


class FlowSReader(PairReader):
    """Scenes of one folder, or of its splits, in order of their names."""

    def __init__(self, source: str, config: DataConfig) -> None:
        path, options = parse_source(source, OPTIONS)
        root = Path(path)
        if not root.exists():
            raise DataError(root, "no such file or folder")
        parents = _scene_parents(root)
        if not parents:
            raise DataError(root, "holds no folders with pc1.npy and pc2.npy")
        if len({parent.parent for parent in parents}) > 1:
            names = ", ".join(parent.relative_to(root).as_posix() for parent in parents[:5])
            raise DataError(root, f"holds {len(parents)} data sets ({names}); name one")
        self.kind = next((kind for kind in DATA_SETS if kind in parents[0].absolute().parts), "")
        self.flip = options.get("flip", self.kind == FLYING)
        self.crop = options.get("crop", self.kind == KITTI)
        self.ground = options.get("ground", False)
        self.points, self.seed = options.get("points", 0), options.get("seed", 0)
        notes: list[str] = []
        if _is_scene(root):
            require_split(config, "one scene")
            records = [PairRecord(root.absolute().name, (root / "pc1.npy", root / "pc2.npy"))]
        elif self.kind == FLYING:
            records, notes = _flying_things(parents, config.split)
        else:
            records, notes = _plain(parents, config.split)
        if (self.kind == KITTI and len(records) > 1) or "list" in options:
            records, note = _listed(records, parents[0], options.get("list"))
            notes += note
        super().__init__(DATA_SETS.get(self.kind, "flow-s"), records, config, notes)

    def _read(self, record: PairRecord) -> tuple[CloudPair, Truth]:
        first, second = (as_cloud(load_arrays(path).get("", np.zeros(0)), path) for path in record.files)
        if len(first) != len(second):
            raise DataError(
                record.files[1], f"holds {len(second)} points, pc1.npy {len(first)}: rows must belong together"
            )
        if self.flip:
            first, second = first * FLIP, second * FLIP
        keep = kept_points(first, second, self.ground) if self.crop else np.ones(len(first), dtype=bool)
        if not keep.any():
            raise DataError(record.files[0], "leaves no point within 35 m that is above the ground")
        rows = drawn(int(keep.sum()), self.points, self.seed, record.name, 0)
        others = drawn(int(keep.sum()), self.points, self.seed, record.name, 1)
        camera = FLYING_CAMERA if self.kind == FLYING else None
        source, target = first[keep][rows], second[keep][others]
        pair = CloudPair(record.name, source, target, axes="camera", dt_s=0.1, camera=camera)

        def truth() -> FlowTruth:
            flow: Float32 = (second - first)[keep][rows]
            known = FlowTruth(flow, np.ones(len(flow), dtype=bool), source, axes="camera", dt_s=0.1, camera=camera)
            if self.kind != KITTI:
                return known
            moving, T = moving_points(first.astype(np.float64), second.astype(np.float64))
            return replace(known, dynamic=None if moving is None else moving[keep][rows], T_target_source=T)

        return pair, truth


def _flying_things(parents: Sequence[Path], split: str) -> tuple[list[PairRecord], list[str]]:
    """Records of the published splits, and what differs from them."""
    if split not in ("all", "train", "val", "test"):
        raise ConfigError(f"FlyingThings3D has the splits train, val, test and all, not '{split}'")
    on_disk = {parent.name: parent for parent in parents}
    wanted = {"train": ["train"], "val": ["train"], "test": ["val"], "all": ["train", "val"]}[split]
    folders = [on_disk[name] for name in wanted if name in on_disk]
    if not folders:
        if split == "all":  # the scenes lie directly in the named folder
            return _plain(parents, "all")
        raise DataError(parents[0].parent, f"has no folder {wanted[0]}/, which split '{split}' is taken from")
    records, notes = [], []
    for folder in folders:
        scenes = _scenes(folder)
        if folder.name == "train":
            full = len(scenes) == TRAIN_SCENES
            repeated = [replace(r, name=f"{scenes[0].name}-again", files=scenes[0].files) for r in scenes[:1]]
            scenes = [s for r in scenes for s in (repeated if r.name.endswith(SMALL_SCENE) else [r])]
            count = VALIDATION_SCENES if full else max(round(len(scenes) * VALIDATION_SCENES / TRAIN_SCENES), 1)
            chosen = set(np.linspace(0, len(scenes) - 1, count).astype(int).tolist())
            if not full:
                notes.append(f"train/ holds {len(scenes)} scenes, not {TRAIN_SCENES}: the splits are not the published")
            elif split != "val":
                notes.append(f"scene {SMALL_SCENE} (8144 points) is replaced by repeating the first, as published")
            if split != "all":
                scenes = [s for i, s in enumerate(scenes) if (i in chosen) == (split == "val")]
        elif len(scenes) != TEST_SCENES:
            notes.append(f"val/ holds {len(scenes)} test scenes, not {TEST_SCENES}")
        records += scenes
    return records, notes


def _plain(parents: Sequence[Path], split: str) -> tuple[list[PairRecord], list[str]]:
    """Scenes of all folders; a split is a folder's name."""
    names = sorted(parent.name for parent in parents)
    chosen = [parent for parent in parents if split in ("all", parent.name)]
    if not chosen or (split != "all" and len(parents) == 1):
        known = f"the splits {', '.join(names)} and all" if len(parents) > 1 else "no splits: use 'all' and select"
        raise ConfigError(f"this data has {known}, not '{split}'")
    records = [record for parent in chosen for record in _scenes(parent, prefix=len(parents) > 1)]
    return records, []


def _listed(records: list[PairRecord], parent: Path, given: Path | None) -> tuple[list[PairRecord], list[str]]:
    """KITTI's scenes that have raw data, where a mapping file says which."""
    beside = [folder / "KITTI_mapping.txt" for folder in (parent, parent.parent)]
    path = given or next((path for path in beside if path.is_file()), None)
    if path is None:
        wrong = len(records) == 200
        note = "published tables are over 142 of these 200 scenes: ?list=DEVKIT_TRAIN_MAPPING leaves them"
        return records, [note] if wrong else []
    listed = listed_scenes(path)
    chosen = [record for record in records if record.name in listed]
    if not chosen:
        raise DataError(path, f"lists none of the {len(records)} scenes")
    return chosen, [f"{len(chosen)} of {len(records)} scenes are listed in {path.name}"]


def _scenes(parent: Path, prefix: bool = True) -> list[PairRecord]:
    name = f"{parent.name}/" if prefix and parent.name in ("train", "val", "test") else ""
    return [
        PairRecord(f"{name}{folder.name}", (folder / "pc1.npy", folder / "pc2.npy"))
        for folder in sorted(parent.iterdir())
        if folder.is_dir() and _is_scene(folder)
    ]


def _is_scene(folder: Path) -> bool:
    return (folder / "pc1.npy").is_file() and (folder / "pc2.npy").is_file()


def _holds_scenes(folder: Path) -> bool:
    return any(_is_scene(child) for child in folder.iterdir() if child.is_dir())


def _scene_parents(root: Path) -> list[Path]:
    """Folders whose children are scenes, at or below ``root``; of a scene, the folder that holds it."""
    return [root.absolute().parent] if _is_scene(root) else find_roots(str(root), _holds_scenes)


def match(source: str) -> float:
    try:
        root = Path(split_source(source)[0])
        if _is_scene(root):
            return 0.95
    except (OSError, ValueError):
        return 0.0
    return score_any(source, _holds_scenes, 0.95)


def check(source: str) -> list[str]:
    return check_pairs(FlowSReader, source)


SPEC = ReaderSpec(
    name="flow-s",
    summary="prepared pairs pc1.npy, pc2.npy with row-wise correspondence: FlyingThings3D_s, KITTI_s",
    samples="CloudPair",
    match=match,
    open=FlowSReader,
    card="flyingthings3d-s",
    check=check,
)
