# SPDX-License-Identifier: Apache-2.0
"""Prints, as Markdown, the evaluator's self-test on published estimates. Exits with 1 if a digit differs.

python benchmarks/check_evaluator.py FOLDER        (layout: see relocalization/published.py)
"""

from __future__ import annotations

import sys
from pathlib import Path

from relocalization.published import METHODS, REFERENCE_GAP, TRUTHS, Check, check_evaluator, truth_gaps
from vision3d.errors import DataError


def table(checks: list[Check], truth: str) -> list[str]:
    """The rows of one truth; the two are never put into one table."""
    lines = [
        f"7-Scenes, truth: {TRUTHS[truth]}",
        "",
        "| method | scene | n | median cm / deg, ours | reference | recall 5 cm & 5 deg, ours | reference | same |",
        "|---|---|---:|---:|---:|---:|---:|:--:|",
    ]
    for c in (c for c in checks if c.truth == truth):
        cm, deg, recall = c.measured
        lines.append(
            f"| {METHODS[c.method]} | {c.scene} | {c.n} | {cm:.2f} / {deg:.2f} | {c.reference[0]} / {c.reference[1]} "
            f"| {recall:.1f} % | {c.reference[2] + ' %' if c.reference[2] else '-'} | {'yes' if c.agrees else 'NO'} |"
        )
    return [*lines, ""]


def gap_table(folder: Path) -> list[str]:
    """How far the two truths are apart; published values in brackets."""
    lines = [
        "Distance of the two truths, test images (reference values in brackets)",
        "",
        "| scene | n | median cm | median deg | largest cm | within 5 cm & 5 deg | scale SfM -> D-SLAM |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for g in truth_gaps(folder):
        p = REFERENCE_GAP[g.scene]
        lines.append(
            f"| {g.scene} | {g.n} | {g.median_cm:.2f} ({p[0]}) | {g.median_deg:.2f} ({p[1]}) "
            f"| {g.largest_cm:.1f} ({p[2]}) | {g.recall_5cm_5deg * 100:.1f} % ({p[3]} %) | {g.scale:.4f} ({p[4]}) |"
        )
    return [*lines, ""]


def main(folder: Path) -> int:
    """Print the tables; 0 when every printed digit agrees."""
    checks = check_evaluator(folder)
    lines = [*table(checks, "sfm"), *table(checks, "dslam"), *gap_table(folder)]
    own = [c.own_error_gap for c in checks if c.truth == "sfm" and c.own_error_gap]
    if own:
        lines.append(
            f"Largest difference to the errors written in the DSAC* files (SfM, {len(own)} files): "
            f"{max(g[0] for g in own):.1e} deg, {max(g[1] for g in own):.1e} m"
        )
    print("\n".join(lines))
    return 0 if all(c.agrees for c in checks) else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        sys.exit(main(Path(sys.argv[1])))
    except DataError as error:
        sys.exit(str(error))
