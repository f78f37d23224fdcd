# SPDX-License-Identifier: Apache-2.0
"""Image files of aerial data sets: every format, grey, huge; sizes come from headers alone."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from box_layouts import drawn
from PIL import Image

from vision3d.contracts import DataConfig
from vision3d.errors import DataError
from vision3d.readers._boxes_images import header_size, read_rgb
from vision3d.readers.dota import SPEC as DOTA

LINE = "10 10 30 10 30 20 10 20 ship 0\n"


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "ppm", "PNG", "JPG"])
def test_every_format_is_measured_and_read(suffix: str, tmp_path: Path) -> None:
    image = drawn(0).image[:100]
    path = tmp_path / "images" / f"P1.{suffix}"
    path.parent.mkdir()
    Image.fromarray(image).save(path)
    assert header_size(path) == (160, 100)
    read = read_rgb(path)
    assert read.shape == (100, 160, 3)
    if suffix.lower() in ("png", "bmp", "tif", "ppm"):
        np.testing.assert_array_equal(read, image)
    else:
        assert np.abs(read.astype(int) - image).mean() < 15
    (tmp_path / "labelTxt").mkdir()
    (tmp_path / "labelTxt" / "P1.txt").write_text(LINE)
    assert len(DOTA.open(str(tmp_path), DataConfig())[0].points) == 1


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16"])
def test_grey_transparent_and_deep_images_become_rgb(mode: str, tmp_path: Path) -> None:
    grey = np.arange(160 * 100, dtype=np.uint16).reshape(100, 160)
    if mode == "I;16":
        cv2.imwrite(str(tmp_path / "a.png"), grey * 4)
    else:
        Image.fromarray((grey % 256).astype(np.uint8)).convert(mode).save(tmp_path / "a.png")
    image = read_rgb(tmp_path / "a.png")
    assert (image.shape, image.dtype) == ((100, 160, 3), np.uint8)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    if mode == "L":
        np.testing.assert_array_equal(image[..., 0], grey % 256)


def test_turned_photographs_keep_their_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(drawn(0).image[:100]).save(tmp_path / "a.jpg", exif=exif)
    assert header_size(tmp_path / "a.jpg") == (160, 100)
    assert read_rgb(tmp_path / "a.jpg").shape == (100, 160, 3)


def test_sizes_beyond_pillows_limit_come_from_the_header(tmp_path: Path) -> None:
    """20000 x 20000 pixels; there is no pixel data in the file at all."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")
    (tmp_path / "images").mkdir()
    (tmp_path / "labelTxt").mkdir()
    (tmp_path / "images" / "P1.png").write_bytes(data)
    (tmp_path / "labelTxt" / "P1.txt").write_text("19000 19000 19990 19000 19990 19400 19000 19400 ship 0\n")
    assert header_size(tmp_path / "images" / "P1.png") == (20_000, 20_000)
    reader = DOTA.open(str(tmp_path), DataConfig())
    assert reader.truth(0).size == (20_000, 20_000)
    # A TIFF of one strip that claims as much.
    tags = [(256, 20_000), (257, 20_000), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 20_000), (279, 1)]
    body = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags))
    body += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags) + bytes(4)
    (tmp_path / "big.tif").write_bytes(body)
    assert header_size(tmp_path / "big.tif") == (20_000, 20_000)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png: no such image"):
        header_size(tmp_path / "a.png")
    for data in (b"", b"\xff\xd8\xff", b"II*\0", b"text", b"BM", b"RIFFxxxx", b"\x89PNG\r\n\x1a\n", b"P6\n"):
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(DataError, match=r"a\.png: is not an image that can be read"):
            header_size(tmp_path / "a.png")


@pytest.mark.slow
def test_a_hundred_million_pixels_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    image = np.zeros((10_100, 10_000), dtype=np.uint8)
    image[10_050, 9_000] = 200
    cv2.imwrite(str(path), image)
    assert header_size(path) == (10_000, 10_100)
    read = read_rgb(path)
    assert read.shape == (10_100, 10_000, 3)
    assert tuple(read[10_050, 9_000]) == (200, 200, 200)
