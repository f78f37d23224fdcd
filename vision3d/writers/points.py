# SPDX-License-Identifier: Apache-2.0
"""Images and one point per object: ``images/NAME.png``, ``points/NAME.txt`` (lines ``x y class``) and ``classes.txt``.

What ``vision3d points`` writes, and the reader ``points`` reads. True boxes are left behind.
"""

from __future__ import annotations

from pathlib import Path

from vision3d.contracts import WriterSpec
from vision3d.errors import DataError
from vision3d.types.images import BoxTruth, LabeledImage
from vision3d.writers._box_files import exact, stem_of, write_classes, write_image, write_text


def write(name: str, sample: LabeledImage, truth: BoxTruth | None, folder: Path) -> list[Path]:
    """Image, points and the list of classes; raises DataError when the sample has no points."""
    if sample.points is None or sample.labels is None:
        raise DataError(sample.name, "has no points: nobody has clicked or labelled its objects")
    stem = stem_of(name)
    rows = zip(sample.points.tolist(), sample.labels.tolist())
    lines = [f"{exact(x)} {exact(y)} {sample.classes[label]}" for (x, y), label in rows]
    return [
        write_image(folder / "images", stem, sample),
        write_text(folder / "points" / f"{stem}.txt", lines),
        write_classes(folder, sample.classes),
    ]


SPEC = WriterSpec(
    name="points",
    summary="images/*.png, points/*.txt (lines 'x y class') and classes.txt: what a person clicked, no boxes",
    samples="LabeledImage",
    write=write,
)
