# SPDX-License-Identifier: Apache-2.0
"""Text and marks on arrays: where they land, what they leave alone, and what they do with odd input."""

from __future__ import annotations

import numpy as np
import pytest

from vision3d import canvas


def blank(h: int = 60, w: int = 80) -> np.ndarray:
    return np.full((h, w, 3), 255, dtype=np.uint8)


def test_a_dot_is_centred_on_its_sub_pixel_position() -> None:
    picture = blank()
    canvas.dots(picture, np.array([[40.25, 30.5]]), 6.0, canvas.BLACK)
    weight = 255.0 - picture[..., 0]
    v, u = np.mgrid[0:60, 0:80]
    centre = [(u * weight).sum() / weight.sum(), (v * weight).sum() / weight.sum()]
    assert centre == pytest.approx([40.25, 30.5], abs=0.1)
    # OpenCV's smooth rim adds half a pixel.
    assert weight.sum() / 255 == pytest.approx(np.pi * 6.5**2, rel=0.05)


def test_lines_are_anti_aliased() -> None:
    picture = blank()
    canvas.segments(picture, np.array([[5.0, 5.0]]), np.array([[70.0, 40.0]]), canvas.BLACK)
    assert len(np.unique(picture)) > 10


def test_positions_that_no_picture_holds_are_skipped() -> None:
    picture = blank()
    wild = np.array([[np.nan, 3.0], [np.inf, 0.0], [1e30, 1.0], [-5e4, 2.0]])
    canvas.dots(picture, wild, 3.0, canvas.BLACK)
    canvas.segments(picture, wild, wild, canvas.BLACK)
    canvas.crosses(picture, wild, 3.0, canvas.BLACK)
    assert (picture == 255).all()


def test_text_is_as_wide_as_it_says_and_stays_in_the_picture() -> None:
    picture = blank(40, 300)
    canvas.put_text(picture, "error 0.24 cm, 0.10°", (5, 10), 15)
    columns = np.flatnonzero((picture < 200).any(axis=(0, 2)))
    assert columns.max() - columns.min() == pytest.approx(canvas.text_width("error 0.24 cm, 0.10°", 15), abs=4)
    again = blank(40, 300)
    canvas.put_text(again, "error 0.24 cm, 0.10°", (5, 10), 15)
    assert (picture == again).all()


def test_characters_that_the_face_lacks_are_replaced_not_drawn_as_boxes() -> None:
    assert canvas.plain("Küche/1σ ± 2×3 → 名\n") == "Kuche/1s ± 2x3 -> ??"


def test_long_text_is_cut_to_the_width() -> None:
    text = canvas.fit_text("seq-01/frame-000007.color.png" * 5, 120, 14)
    assert text.endswith("...")
    assert canvas.text_width(text, 14) <= 120
    assert canvas.fit_text("short", 120, 14) == "short"
    assert canvas.fit_text("nothing fits", 3, 14) == ""


@pytest.mark.parametrize(("width", "expected"), [(320, 640), (640, 640), (1000, 1000), (4000, 1280)])
def test_width_is_brought_into_the_legible_range(width: int, expected: int) -> None:
    out, factor = canvas.fit_width(blank(width * 3 // 4, width))
    assert out.shape[1] == expected
    assert factor == pytest.approx(expected / width)
    assert out.shape[0] == pytest.approx(expected * 3 / 4, abs=1)


def test_series_colours_are_far_apart_for_every_kind_of_sight() -> None:
    # Brettel-style simulation matrices of Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
    matrices = {
        "normal": np.eye(3),
        "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    }

    def closest(colors: list | tuple) -> float:
        """Distance of the two most alike colours under the worst kind of sight, in gamma-encoded RGB."""
        linear = (np.array(colors) / 255.0) ** 2.2
        seen = [np.clip(linear @ np.asarray(matrix).T, 0, 1) ** (1 / 2.2) for matrix in matrices.values()]
        pairs = np.triu_indices(len(colors), 1)
        return min(np.linalg.norm(s[:, None] - s[None], axis=-1)[pairs].min() for s in seen)

    assert closest([canvas.GREEN, canvas.VERMILLION, canvas.SKY]) > 0.2
    assert closest(canvas.SERIES[:4]) > 0.3
    # The measure can fail: the usual red and green do.
    assert closest([(214, 39, 40), (44, 160, 44)]) < 0.2
