# SPDX-License-Identifier: Apache-2.0
"""``bodies:``: pairs of clouds of bodies that move rigidly, computed, with exact scene flow. Needs no file.

``bodies:boxes?scenes=200&seed=0&points=1024&objects=3-8&noise=0.01``; every option may be left out.

- ``bodies:boxes`` (also ``bodies:``): solids in front of a camera, sampled like FlyingThings3D and prepared KITTI:
  what the other scan does not see is left out of both clouds (``occluded=1`` keeps it, valid).
- ``bodies:street``: a driving scene under a spinning LiDAR, with the sensor's motion, ground and classes;
  occluded points are kept, and valid (``occluded=0`` leaves them out).
- ``bodies:fragments?fragments=FOLDER``: parts cut out of real clouds (``.npy``, (N, 3)) and moved.
- ``bodies:mixed``: two scenes of ``boxes``, then one of ``street``, over and over: for a network that is to meet both.

``points=0`` takes every ray that hits. Metres and degrees are per pair of scans; ``dynamic`` is what moves in the world
by more than 5 cm. A cloud has fewer points than asked for only where there is hardly anything to see.

Every split (``train``, ``val``, ``test``, and ``all``, which is what one gets without naming any) holds ``scenes``
scenes of its own; no scene is in two. Scene k is the same whatever the number of scenes, and whichever were read
before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.readers._source import between, bounded, flag, parse_source, selected
from vision3d.types.clouds import CloudPair, FlowTruth

SPLITS = ("all", "train", "val", "test")
KEPT = 8  # scenes in memory: the sample and the truth of one are mostly asked for one after the other


Parsers = dict[str, Callable[[str], Any]]
COMMON: Parsers = {
    "scenes": bounded(int, 1, 1_000_000),
    "seed": bounded(int, 0, 2**32 - 1),
    "points": bounded(int, 0, 1_000_000),
    "target_points": bounded(int, 0, 1_000_000),
    "objects": between(100),
    "noise": bounded(float, 0, 1),
    "speed": bounded(float, 0, 10),
    "still": bounded(float, 0, 1),
    "ego": bounded(float, 0, 5),
}
TURN = bounded(float, 0, 180)
OPTIONS: dict[str, Parsers] = {
    "boxes": COMMON | {"occluded": flag, "turn": TURN, "alike": bounded(float, 0, 1), "far": bounded(float, 1, 200)},
    "street": COMMON
    | {
        "occluded": flag,
        "beams": bounded(int, 8, 128),
        "columns": bounded(int, 90, 4000),
        "far": bounded(float, 10, 200),
    },
    "fragments": COMMON | {"turn": TURN, "fragments": Path},
    "mixed": {name: COMMON[name] for name in ("scenes", "seed", "points", "target_points", "noise", "still")},
}
MIXTURE = ("boxes", "boxes", "street")
# Metres and degrees are per pair. A scene of a room is a tenth of a street's size, and so are its motions.
SHARED = {"scenes": 200, "seed": 0, "noise": 0.01, "still": 0.2}
DEFAULTS: dict[str, dict[str, Any]] = {
    "boxes": SHARED
    | {"points": 1024, "objects": (3, 8), "speed": 2.0, "turn": 10.0, "alike": 0.5, "ego": 1.0}
    | {"far": 35.0, "occluded": False},
    "street": SHARED
    | {"points": 0, "objects": (6, 14), "speed": 2.0, "ego": 1.5}
    | {"far": 80.0, "occluded": True, "beams": 32, "columns": 1200},
    "fragments": SHARED | {"points": 1024, "objects": (3, 6), "speed": 0.3, "turn": 15.0, "ego": 0.1},
    "mixed": SHARED | {"points": 1024},
}
GROUND_TOO = 3  # a street's points are half ground, which a network never sees: "mixed" draws as many more of them


class BodiesReader:
    """Scenes made when they are asked for. Implements :class:`vision3d.contracts.Reader`.

    Raises:
        DataError: there is no such preset or option, or its value is out of range.
        ConfigError: there is no such split, ``select`` leaves nothing, or a file of true poses is given.
    """

    samples: type = CloudPair

    def __init__(self, source: str, config: DataConfig) -> None:
        preset = source.partition("?")[0].removeprefix("bodies:") or "boxes"
        if preset not in OPTIONS:
            raise DataError(source.partition("?")[0], f"the generated scenes are bodies:{', bodies:'.join(OPTIONS)}")
        if config.split not in SPLITS:
            raise ConfigError(f"bodies: has the splits {', '.join(SPLITS)}, not '{config.split}'")
        if config.truth is not None:
            raise ConfigError("bodies: computes its own truth; leave the file of true poses out")
        _, given = parse_source(source, OPTIONS[preset])
        self.name = f"bodies-{preset}"
        self.preset = preset
        self.options = DEFAULTS[preset] | given
        self.options.setdefault("target_points", self.options["points"])
        self.split = config.split
        # All truths follow from it, so that nobody has to compute them to tell two data sets apart.
        self.truth_identity = f"{preset} {sorted(self.options.items(), key=str)} {config.split}"
        if preset == "fragments":
            from vision3d.readers._bodies_fragments import fragment_files

            if "fragments" not in given:
                raise DataError("bodies:fragments", "add ?fragments=FOLDER, a folder with .npy clouds of shape (N, 3)")
            fragment_files(self.options["fragments"])
        self.bad: Mapping[int, str] = {}
        self.numbers = selected(self.options["scenes"], config.select, "scenes")
        self._kept: OrderedDict[int, tuple[CloudPair, FlowTruth]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.numbers)

    def key(self, index: int) -> str:
        """``scene-000012``, or ``train-000012`` in a split."""
        return f"{'scene' if self.split == 'all' else self.split}-{self.numbers[index]:06d}"

    def __getitem__(self, index: int) -> CloudPair:
        return self._scene(index)[0]

    def truth(self, index: int) -> FlowTruth:
        return self._scene(index)[1]

    def _scene(self, index: int) -> tuple[CloudPair, FlowTruth]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        number = self.numbers[index]
        if number not in self._kept:
            pair, truth = self._make(self.key(index), number)
            if not (len(pair.source) and len(pair.target)):
                raise DataError(
                    f"bodies:{self.preset}", f"{pair.name} shows nothing: take a smaller ego or a larger far"
                )
            self._kept[number] = pair, truth
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]

    def _make(self, name: str, number: int) -> tuple[CloudPair, FlowTruth]:
        """The scene from its own three streams: layout, source rays, target rays."""
        from vision3d.readers import _bodies_scan as scan

        preset, o = self._recipe(number)
        stream = [o["seed"], SPLITS.index(self.split), number]
        layout, source, target = (np.random.default_rng([*stream, part]) for part in range(3))
        draw = scan.Draw(o["points"], o["target_points"], o["noise"], o.get("occluded", True))
        if preset == "boxes":
            from vision3d.readers._bodies_boxes import BoxesConfig, DepthCamera, boxes_world

            boxes = BoxesConfig(o["objects"], o["speed"], o["turn"], o["still"], o["alike"], o["ego"], o["far"])
            camera = DepthCamera(o["far"])
            return scan.scan_pair(name, boxes_world(boxes, layout), camera, draw, (source, target), tell_motion=False)
        if preset == "street":
            from vision3d.readers._bodies_lidar import Lidar
            from vision3d.readers._bodies_street import StreetConfig, street_world

            street = street_world(StreetConfig(o["objects"], o["speed"], o["still"], o["ego"]), layout)
            lidar = Lidar(o["beams"], o["columns"], o["far"])
            return scan.scan_pair(name, street, lidar, draw, (source, target), tell_motion=True)
        from vision3d.readers._bodies_fragments import FragmentsConfig, fragments_pair

        parts = FragmentsConfig(o["fragments"], o["objects"], o["speed"], o["turn"], o["still"], o["ego"])
        return fragments_pair(name, parts, draw, (layout, source, target))

    def _recipe(self, number: int) -> tuple[str, dict[str, Any]]:
        """The preset of a scene and its options."""
        if self.preset != "mixed":
            return self.preset, self.options
        preset = MIXTURE[number % len(MIXTURE)]
        options = DEFAULTS[preset] | self.options
        if preset == "street":
            options |= {name: GROUND_TOO * self.options[name] for name in ("points", "target_points")}
        return preset, options


def match(source: str) -> float:
    return 1.0 if source.startswith("bodies:") else 0.0


def check(source: str) -> list[str]:
    try:
        BodiesReader(source, DataConfig())
    except (DataError, ConfigError) as error:
        return [str(error)]
    return []


SPEC = ReaderSpec(
    name="bodies",
    summary="bodies:boxes?scenes=200&seed=0, computed pairs of clouds of moving rigid bodies with exact flow",
    samples="CloudPair",
    match=match,
    open=BodiesReader,
    card="bodies",
    check=check,
)
