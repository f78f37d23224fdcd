# SPDX-License-Identifier: Apache-2.0
"""``aerial:``: scenes seen from above with oriented objects, computed, with exact boxes. Needs no file.

``aerial:dense?scenes=64&size=256&objects=20-40&classes=ship,plane&seed=0&jitter=0.1``; every option may be left out.

- ``aerial:sparse``: a few objects, far apart, turned any way, on fields, coasts and in towns.
- ``aerial:dense``: parking rows, marinas, depots and aprons with 1 to 3 pixels between neighbours.
- ``aerial:mixed`` (also ``aerial:``): both.

Objects are 16 to 120 pixels long (``scale=2`` doubles them), from square to 5:1; small vehicles are 16 to 24 pixels
long. No object overlaps another or is cut by the border. ``contrast=0.5`` halves how far they stand out;
``noise=0`` is a perfect camera. Points lie uniformly in an ellipse around the true centre whose half axes are
``jitter`` times the box's width and height; jitter changes neither the picture nor the boxes.

Every split (``train``, ``val``, ``test``, and ``all``, which is what one gets without naming any) holds ``scenes``
scenes of its own; no scene is in two. Scene k is the same whatever the number of scenes, and whichever were read
before.
"""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.readers._source import between, bounded, parse_source, selected
from vision3d.types.images import BoxTruth, LabeledImage

PRESETS = ("mixed", "dense", "sparse")
SPLITS = ("all", "train", "val", "test")
# In the order of DOTA's table.
CLASSES = ("plane", "small-vehicle", "large-vehicle", "ship", "tennis-court", "storage-tank", "harbor")
NOT_IN_DENSE = ("tennis-court",)
KEPT = 8  # scenes in memory: the sample and the truth of one are mostly asked for one after the other


def some_classes(text: str) -> tuple[str, ...]:
    """``a,b,c`` out of CLASSES, in the order of CLASSES."""
    named = [word.strip() for word in text.split(",") if word.strip()]
    for word in named:
        if word not in CLASSES:
            near = difflib.get_close_matches(word, CLASSES, n=1)
            raise ValueError(f"did you mean '{near[0]}'?" if near else f"there are {', '.join(CLASSES)}")
    if not named:
        raise ValueError(f"name some of {', '.join(CLASSES)}")
    return tuple(name for name in CLASSES if name in named)


OPTIONS = {
    "scenes": bounded(int, 1, 1_000_000),
    "seed": bounded(int, 0, 2**32 - 1),
    "size": bounded(int, 96, 8192),
    "objects": between(100_000),
    "classes": some_classes,
    "jitter": bounded(float, 0, 0.5),
    "scale": bounded(float, 0.5, 4),
    "contrast": bounded(float, 0.1, 1),
    "noise": bounded(float, 0, 5),
}
DEFAULTS: dict[str, Any] = {
    "scenes": 64,
    "seed": 0,
    "size": 256,
    "objects": None,
    "classes": CLASSES,
    "jitter": 0.1,
    "scale": 1.0,
    "contrast": 1.0,
    "noise": 1.0,
}


class AerialReader:
    """Scenes made when they are asked for. Implements :class:`vision3d.contracts.Reader`.

    Raises:
        DataError: there is no such preset or option, or its value is out of range.
        ConfigError: there is no such split, ``select`` leaves nothing, or a size or a file of true poses is given.
    """

    samples: type = LabeledImage

    def __init__(self, source: str, config: DataConfig) -> None:
        preset = source.partition("?")[0].removeprefix("aerial:") or "mixed"
        if preset not in PRESETS:
            raise DataError(source.partition("?")[0], f"the generated scenes are aerial:{', aerial:'.join(PRESETS)}")
        if config.split not in SPLITS:
            raise ConfigError(f"aerial: has the splits {', '.join(SPLITS)}, not '{config.split}'")
        if config.truth is not None:
            raise ConfigError("aerial: computes its own truth; leave the file of true poses out")
        if config.size:
            raise ConfigError(
                f"aerial: draws its images at the size asked for: write aerial:{preset}?size={config.size}"
            )
        _, given = parse_source(source, OPTIONS)
        self.name = f"aerial-{preset}"
        self.preset = preset
        self.options = DEFAULTS | given
        self.classes: tuple[str, ...] = self.options["classes"]
        if preset == "dense" and set(self.classes) <= set(NOT_IN_DENSE):
            raise DataError(source, f"no dense scene holds a {self.classes[0]}: take aerial:sparse or aerial:mixed")
        self.split = config.split
        # All truths follow from it, so that nobody has to compute them to tell two data sets apart.
        self.truth_identity = f"{preset} {sorted(self.options.items(), key=str)} {config.split}"
        self.bad: Mapping[int, str] = {}
        self.numbers = selected(self.options["scenes"], config.select, "scenes")
        self._kept: OrderedDict[int, tuple[LabeledImage, BoxTruth]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.numbers)

    def key(self, index: int) -> str:
        """``scene-000012``, or ``train-000012`` in a split."""
        return f"{'scene' if self.split == 'all' else self.split}-{self.numbers[index]:06d}"

    def __getitem__(self, index: int) -> LabeledImage:
        return self._scene(index)[0]

    def truth(self, index: int) -> BoxTruth:
        return self._scene(index)[1]

    def _scene(self, index: int) -> tuple[LabeledImage, BoxTruth]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        number = self.numbers[index]
        if number not in self._kept:
            self._kept[number] = self._make(self.key(index), number)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]

    def _make(self, name: str, number: int) -> tuple[LabeledImage, BoxTruth]:
        """The scene from its own three streams: layout, paint, points."""
        from vision3d.readers._aerial_scene import SceneConfig, render
        from vision3d.readers._aerial_shapes import KINDS

        o = self.options
        stream = [o["seed"], SPLITS.index(self.split), number]
        layout, paint, clicks = (np.random.default_rng([*stream, part]) for part in range(3))
        config = SceneConfig(self.preset, o["size"], o["objects"], self.classes, o["scale"], o["contrast"], o["noise"])
        image, items = render(config, layout, paint)
        count = len(items)
        centers = np.array([item.center for item in items]).reshape(count, 2)
        sides = np.array([(item.length, item.width) for item in items]).reshape(count, 2)
        headed = np.array([item.heading for item in items])
        truth = BoxTruth(
            boxes=_le90(centers, sides, headed),
            labels=np.array([self.classes.index(item.kind) for item in items], np.int64),
            difficult=np.zeros(count, np.uint8),
            quads=np.array([item.corners() for item in items]).reshape(count, 4, 2),
            classes=self.classes,
            size=(o["size"], o["size"]),
            heading=np.array([item.heading if KINDS[item.kind].headed else np.nan for item in items]),
        )
        radius, angle = np.sqrt(clicks.uniform(0, 1, count)), clicks.uniform(0, 2 * np.pi, count)
        ahead, right = (o["jitter"] * sides * radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])).T
        c, s = np.cos(headed), np.sin(headed)
        points = centers + np.column_stack([c * ahead - s * right, s * ahead + c * right])
        ids = np.arange(count, dtype=np.int64)
        return LabeledImage(name, image, self.classes, points, truth.labels.copy(), ids), truth


def _le90(centers: Any, sides: Any, heading: Any) -> Any:
    """(N, 5) boxes: the longer side first, angles in [-pi/2, pi/2)."""
    turned = sides[:, 1] > sides[:, 0]
    long_short = np.where(turned[:, None], sides[:, ::-1], sides)
    theta = heading + np.where(turned, np.pi / 2, 0.0)
    theta = (theta + np.pi / 2) % np.pi - np.pi / 2
    return np.column_stack([centers, long_short, theta])


def match(source: str) -> float:
    return 1.0 if source.startswith("aerial:") else 0.0


def check(source: str) -> list[str]:
    try:
        AerialReader(source, DataConfig())
    except (DataError, ConfigError) as error:
        return [str(error)]
    return []


SPEC = ReaderSpec(
    name="aerial",
    summary="aerial:mixed?scenes=64&size=256&seed=0, computed scenes from above with oriented objects, exact boxes",
    samples="LabeledImage",
    match=match,
    open=AerialReader,
    card="aerial",
    check=check,
)
