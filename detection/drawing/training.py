# SPDX-License-Identifier: Apache-2.0
"""What a method that learns from points looks at: the boxes offered for an object, and the angles of a whole image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detection.drawing.colors import TRUE, angle_colors
from detection.drawing.frame import Frame
from detection.drawing.sheet import Key, with_legend
from vision3d import canvas
from vision3d.canvas import Picture, Rgb
from vision3d.geometry import rotated

Float = NDArray[np.float64]

# Proposals of a bag that are drawn bright, by score.
_BEST = 7
_FAINT: Rgb = (120, 140, 160)
# Cells along the longer side of the image: more lines than these run into each other.
_CELLS = 48


def bag_sheet(
    image: NDArray[np.uint8],
    point: Float,
    bag: Float,
    scores: Float | None = None,
    chosen: Float | None = None,
    true_box: Float | None = None,
) -> Picture:
    """(h, w, 3) uint8 RGB: the boxes offered for one object, the best ones bright, on the part of the image they cover.

    Args:
        image: (H, W, 3) uint8 RGB.
        point: (2,) image pixels.
        bag: (N, 5) proposals.
        scores: (N,) or None, then all are faint.
        chosen, true_box: (5,) the box that came out, and the true one.
    """
    hulls = rotated.hulls(bag)
    side = 1.1 * float((hulls[:, 2:] - hulls[:, :2]).max()) if len(bag) else 64.0
    frame = Frame.around(image, bold=True).crop(image, point, side)
    frame.outline(bag, _FAINT)
    keys = [Key(f"{len(bag)} proposals", _FAINT)]
    if scores is not None and len(bag):
        best = np.argsort(-scores, kind="stable")[:_BEST]
        frame.outline(bag[best], canvas.YELLOW)
        keys.append(Key(f"best {len(best)}, {scores[best].min():.3f} to {scores[best].max():.3f}", canvas.YELLOW))
    if chosen is not None:
        frame.outline(chosen[None], canvas.VERMILLION, 3)
        keys.append(Key("result", canvas.VERMILLION))
    if true_box is not None:
        frame.dashes(true_box[None], TRUE, 2)
        keys.append(Key("true", TRUE, "dashed"))
    frame.crosses(point[None], 5.0, TRUE)
    return with_legend(frame.picture, f"boxes offered for the point {point[0]:.0f}, {point[1]:.0f}", keys)


def angle_sheet(
    image: NDArray[np.uint8], angles: Float, stride: int, strength: Float | None = None, boxes: Float | None = None
) -> Picture:
    """(h, w, 3) uint8 RGB: the angle of each cell of a map as a short line in the hue of its axis.

    Args:
        image: (H, W, 3) uint8 RGB.
        angles: (h, w) radians, clockwise on screen.
        stride: image pixels per cell.
        strength: (h, w) how long the lines are, 0 to 1; all of full length if None.
        boxes: (N, 5) to be drawn dashed, or None.
    """
    frame = Frame.around(image)
    step = max(1, int(np.ceil(max(angles.shape) / _CELLS)))
    rows, columns = (
        a.ravel() for a in np.mgrid[step // 2 : angles.shape[0] : step, step // 2 : angles.shape[1] : step]
    )
    theta = angles[rows, columns]
    centre = np.stack([columns + 0.5, rows + 0.5], axis=1) * stride - 0.5
    reach = 0.45 * step * stride * (np.ones(len(theta)) if strength is None else np.clip(strength[rows, columns], 0, 1))
    arm = reach[:, None] * np.stack([np.cos(theta), np.sin(theta)], axis=1)
    colors = angle_colors(theta)
    for color in np.unique(colors, axis=0):
        some = (colors == color).all(axis=1)
        rgb = (int(color[0]), int(color[1]), int(color[2]))
        canvas.segments(frame.picture, frame.place(centre - arm)[some], frame.place(centre + arm)[some], rgb, 2)
    if boxes is not None:
        frame.dashes(boxes, TRUE)
    wheel = [(0.0, "0"), (np.pi / 4, "45"), (np.pi / 2, "90"), (3 * np.pi / 4, "-45")]
    keys = []
    for angle, text in wheel:
        r, g, b = angle_colors(np.array([angle]))[0]
        keys.append(Key(f"{text}°", (int(r), int(g), int(b))))
    return with_legend(frame.picture, "angle of each cell, clockwise from the right", keys)


def sight_sheets(
    picture: Picture,
    image: NDArray[np.uint8],
    point: Float,
    bag: Float,
    scores: Float,
    chosen: Float | None,
    angles: Float,
    stride: int,
) -> Picture:
    """(h, w, 3) uint8 RGB: a picture of results, below it one bag and the angles of all cells."""
    sheets = [picture, bag_sheet(image, point, bag, scores, chosen), angle_sheet(image, angles, stride)]
    width = max(sheet.shape[1] for sheet in sheets)
    return np.concatenate([_widened(sheet, width) for sheet in sheets])


def _widened(picture: Picture, width: int) -> Picture:
    found = np.full((picture.shape[0], width, 3), 255, np.uint8)
    found[:, : picture.shape[1]] = picture
    return found
