# SPDX-License-Identifier: Apache-2.0
"""The layout of DOTA: ``images/NAME.png``, ``labelTxt/NAME.txt`` and ``classes.txt``, which its reader takes back.

Corners are written in the order in which the truth has them, with every digit. Blanks in class names become dashes,
because fields are divided by blanks. An image without objects gets a file with the two header lines alone. Points and
headings are not kept.
"""

from __future__ import annotations

from pathlib import Path

from vision3d.contracts import WriterSpec
from vision3d.types.images import BoxTruth, LabeledImage
from vision3d.writers._box_files import (
    exact,
    require_truth,
    stem_of,
    without_blanks,
    write_classes,
    write_image,
    write_text,
)


def write(name: str, sample: LabeledImage, truth: BoxTruth | None, folder: Path) -> list[Path]:
    """Image, labels and the list of classes; raises DataError when there are no true boxes."""
    truth, stem, classes = require_truth(sample, truth), stem_of(name), without_blanks(sample.classes)
    lines = ["imagesource:vision3d", f"gsd:{'null' if sample.gsd_m is None else exact(sample.gsd_m)}"]
    for quad, label, difficult in zip(truth.quads.reshape(-1, 8), truth.labels, truth.difficult):
        lines.append(" ".join([*map(exact, quad), classes[label], str(int(difficult))]))
    return [
        write_image(folder / "images", stem, sample),
        write_text(folder / "labelTxt" / f"{stem}.txt", lines),
        write_classes(folder, classes),
    ]


SPEC = WriterSpec(
    name="dota",
    summary="images/*.png, labelTxt/*.txt and classes.txt, as DOTA has them",
    samples="LabeledImage",
    write=write,
)
