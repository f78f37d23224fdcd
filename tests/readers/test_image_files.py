# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest
from layouts import write_depth, write_image

from vision3d.errors import DataError
from vision3d.readers import _images


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_lossless_formats_come_back_as_rgb(tmp_path, small, suffix):
    frame = small[0][0]
    path = write_image(tmp_path / f"a{suffix}", frame)
    np.testing.assert_array_equal(_images.read_image(path), frame.image)
    assert _images.image_size(path) == (160, 120)


def test_grey_images_become_three_equal_channels(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    cv2.imwrite(str(tmp_path / "g.png"), grey)
    np.testing.assert_array_equal(_images.read_image(tmp_path / "g.png"), np.repeat(grey[..., None], 3, axis=2))


def test_exif_orientation_does_not_turn_the_pixel_grid(tmp_path):
    from PIL import Image

    image = Image.new("RGB", (20, 10))
    exif = image.getexif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    image.save(tmp_path / "r.jpg", exif=exif)
    assert _images.read_image(tmp_path / "r.jpg").shape == (10, 20, 3)
    assert _images.image_size(tmp_path / "r.jpg") == (20, 10)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_truncated_files_are_refused_wherever_they_end(tmp_path, small, suffix, keep):
    path = write_image(tmp_path / f"a{suffix}", small[0][0])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DataError, match=rf"a\{suffix}: truncated"):
        _images.read_image(path)


def test_a_flipped_byte_in_a_png_is_found(tmp_path, small):
    path = write_image(tmp_path / "a.png", small[0][0])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="damaged PNG: checksum of chunk IDAT"):
        _images.read_image(path)


def test_bytes_after_the_end_of_a_jpeg_are_harmless(tmp_path, small):
    path = write_image(tmp_path / "a.jpg", small[0][0])
    before = _images.read_image(path)
    path.write_bytes(path.read_bytes() + b"trailer of a phone")
    np.testing.assert_array_equal(_images.read_image(path), before)


def test_files_that_are_no_images(tmp_path):
    for name, content, words in (("e.png", b"", "empty file"), ("t.png", b"hello", "not an image")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=words):
            _images.read_image(tmp_path / name)
        with pytest.raises(DataError, match="not an image"):
            _images.image_size(tmp_path / name)
    with pytest.raises(DataError, match="no such image"):
        _images.read_image(tmp_path / "absent.png")
    with pytest.raises(DataError, match="no such image"):
        _images.image_size(tmp_path / "absent.png")


def test_depth_is_metres_and_both_kinds_of_unknown_become_zero(tmp_path, small):
    raw = np.array([[0, 65535, 1000], [2500, 1, 40000]], dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "d.png"), raw)
    np.testing.assert_allclose(_images.read_depth_m(tmp_path / "d.png", 1000.0), [[0, 0, 1], [2.5, 0.001, 40]])
    write_image(tmp_path / "rgb.png", small[0][0])
    with pytest.raises(DataError, match="one 16-bit channel"):
        _images.read_depth_m(tmp_path / "rgb.png", 1000.0)
    write_depth(tmp_path / "room.png", small[0][0], 5000.0)
    np.testing.assert_allclose(_images.read_depth_m(tmp_path / "room.png", 5000.0), small[0][0].depth_m, atol=1.1e-4)


def test_sizes_shrink_to_the_longest_side_and_never_grow():
    assert _images.fitted_size(640, 480, 0) == (640, 480)
    assert _images.fitted_size(640, 480, 1000) == (640, 480)
    assert _images.fitted_size(640, 480, 320) == (320, 240)
    assert _images.fitted_size(1080, 1920, 640) == (360, 640)
    assert _images.fitted_size(1000, 1, 10) == (10, 1)


def test_shrunk_depth_holds_only_values_of_the_original():
    depth = np.random.default_rng(0).uniform(1, 5, (48, 64)).astype(np.float32)
    small = _images.resize_depth(depth, 20, 15)
    assert small.shape == (15, 20)
    assert np.isin(small, depth).all()
    np.testing.assert_array_equal(_images.resize_depth(depth, 64, 48), depth)
