# SPDX-License-Identifier: Apache-2.0
"""Draws sparse_engine.svg: sites, sorted rows, kernel map and register tile of a small 2D cloud, all from the engine.

python docs/images/sparse_engine.py
"""

from __future__ import annotations

from pathlib import Path

import torch

from vision3d.sparse import SparseTensor

SITES = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (2, 4), (3, 1), (3, 4), (4, 1), (4, 2), (4, 3), (4, 4)]
INK, MUTED, GRID, BLUE, ORANGE, GREEN, SKY = "#1f2328", "#656d76", "#d0d7de", "#0072b2", "#d55e00", "#009e73", "#56b4e9"
ROW = 21


def text(
    x: float, y: float, words: str, size: int = 13, color: str = INK, anchor: str = "start", bold: bool = False
) -> str:
    """One line of text."""
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}" text-anchor="{anchor}"{weight}>{words}</text>'


def box(x: float, y: float, w: float, h: float, fill: str, line: str = "white", opacity: float = 1.0) -> str:
    """A rectangle."""
    where = f'x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}"'
    return f'<rect {where} fill="{fill}" stroke="{line}" fill-opacity="{opacity:g}"/>'


def arrow(x1: float, y1: float, x2: float, y2: float, color: str = MUTED) -> str:
    """A line with a head."""
    ends = f'x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"'
    return f'<line {ends} stroke="{color}" stroke-width="1.5" marker-end="url(#head)"/>'


def main() -> None:
    """Write the file next to this one."""
    coords = torch.tensor([(0, y, x) for y, x in SITES], dtype=torch.int32)
    kernel_map = SparseTensor(coords, torch.zeros(len(SITES), 1)).sites.subm_map((3, 3), (1, 1))
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 400" '
        'font-family="system-ui, DejaVu Sans, sans-serif">',
        '<defs><marker id="head" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto">'
        f'<path d="M0,0 L7,3 L0,6 z" fill="{MUTED}"/></marker></defs>',
        box(0, 0, 1000, 400, "white"),
    ]
    parts += [text(20, 30, "1  Sites, in sorted order", 15, bold=True)]
    for y in range(5):
        for x in range(6):
            parts.append(box(20 + 34 * x, 60 + 34 * y, 34, 34, "white", GRID))
    for row, (y, x) in enumerate(SITES):
        parts.append(box(20 + 34 * x, 60 + 34 * y, 34, 34, SKY, GRID, 0.45))
        parts.append(text(37 + 34 * x, 82 + 34 * y, str(row), 13, anchor="middle"))
    parts += [
        text(20, 256, "One 64-bit key per site, wide enough", 12, MUTED),
        text(20, 273, "that no neighbour can alias another", 12, MUTED),
        text(20, 290, "line. Rows stay sorted from layer to", 12, MUTED),
        text(20, 307, "layer; nothing is hashed.", 12, MUTED),
    ]
    offset = 7  # (+1, 0): the row above in memory order
    rows_in, rows_out = (r.tolist() for r in kernel_map.pairs_of(offset))
    parts += [text(270, 30, "2  Two streams, merged", 15, bold=True), text(270, 50, "offset (+1, 0)", 12, MUTED)]
    for row, (y, x) in enumerate(SITES):
        at = 66 + ROW * row
        parts.append(box(270, at, 62, ROW - 2, SKY, GRID, 0.25))
        parts.append(text(276, at + 14, f"{row}: {y},{x}", 12))
        parts.append(box(400, at, 62, ROW - 2, SKY, GRID, 0.25))
        parts.append(text(406, at + 14, f"{row}: {y},{x}", 12))
    for i, o in zip(rows_in, rows_out, strict=True):
        parts.append(arrow(398, 75 + ROW * i, 336, 75 + ROW * o, ORANGE))
    parts += [
        text(270, 340, "Target keys rise with the row, so one", 12, MUTED),
        text(270, 357, "pointer that only moves forward finds", 12, MUTED),
        text(270, 374, "every pair: outputs left, inputs right.", 12, MUTED),
    ]
    parts += [
        text(510, 30, "3  The kernel map", 15, bold=True),
        text(510, 50, "(input, output) rows per offset", 12, MUTED),
    ]
    names = {5: "( 0,+1)", 6: "(+1,-1)", 7: "(+1, 0)", 8: "(+1,+1)"}
    for line, (k, name) in enumerate(names.items()):
        pairs = list(zip(*(r.tolist() for r in kernel_map.pairs_of(k)), strict=True))
        at = 74 + 46 * line
        parts.append(text(510, at, name, 13, ORANGE if k == offset else INK, bold=True))
        parts.append(text(510, at + 18, " ".join(f"{i}&#8594;{o}" for i, o in pairs), 11))
    parts += [
        text(510, 268, "( 0, 0) is the identity: not stored.", 12, MUTED),
        text(510, 285, "The other four are the same lists", 12, MUTED),
        text(510, 302, "with their sides swapped.", 12, MUTED),
        text(510, 340, "Both columns rise: a block of outputs", 12, MUTED),
        text(510, 357, "owns one run of every list, and so does", 12, MUTED),
        text(510, 374, "a block of inputs (for the gradient).", 12, MUTED),
    ]
    parts += [
        text(765, 30, "4  A block of outputs stays", 15, bold=True),
        text(765, 50, "6 rows x 16 columns in registers", 12, MUTED),
    ]
    for r in range(6):
        parts.append(box(765, 74 + 20 * r, 56, 18, SKY, GRID, 0.5))
        for c in range(8):
            parts.append(box(880 + 13 * c, 74 + 20 * r, 13, 18, GREEN, "white", 0.55))
    for c in range(8):
        for r in range(2):
            parts.append(box(880 + 13 * c, 214 + 14 * r, 13, 14, ORANGE, "white", 0.55))
    parts += [
        arrow(824, 133, 874, 133),
        arrow(931, 212, 931, 199),
        text(765, 210, "input rows,", 11, MUTED),
        text(765, 224, "where they lie", 11, MUTED),
        text(880, 258, "packed weights", 11, MUTED),
        text(765, 290, "All offsets add to a block of output", 12, MUTED),
        text(765, 307, "rows while it is in the cache. Nothing", 12, MUTED),
        text(765, 324, "is gathered into memory, and threads", 12, MUTED),
        text(765, 341, "own whole blocks: the bits do not", 12, MUTED),
        text(765, 358, "depend on how many there are.", 12, MUTED),
        "</svg>\n",
    ]
    Path(__file__).with_suffix(".svg").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
