# SPDX-License-Identifier: Apache-2.0
"""Plain images for detectors."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError, DataError
from vision3d.readers.pictures import SPEC


def write(path: Path, value: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((6, 8, 3), (value, 0, 255), np.uint8))
    return path


def test_a_folder_and_a_single_image(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        write(tmp_path / name)
    reader = SPEC.open(str(tmp_path), DataConfig())
    assert [reader.key(i) for i in range(len(reader))] == ["a", "b"]
    sample = reader[0]
    assert (sample.image[0, 0] == (255, 0, 7)).all()
    assert sample.classes == ()
    assert sample.points is None
    assert reader.truth(0) is None
    assert SPEC.match(str(tmp_path)) == pytest.approx(0.1)
    one = SPEC.open(str(tmp_path / "b.png"), DataConfig())
    assert (one.name, len(one)) == ("b", 1)
    assert SPEC.check is not None
    assert SPEC.check(str(tmp_path)) == []


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        SPEC.open(str(tmp_path / "none"), DataConfig())
    with pytest.raises(DataError, match="holds no image"):
        SPEC.open(str(tmp_path), DataConfig())
    write(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="no split"):
        SPEC.open(str(tmp_path), DataConfig(split="train"))
    cv2.imwrite(str(tmp_path / "a.bmp"), np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(DataError, match="has the name of"):
        SPEC.open(str(tmp_path), DataConfig())
    (tmp_path / "a.bmp").unlink()
    (tmp_path / "a.png").write_bytes(b"nothing")
    assert SPEC.check is not None
    (problem,) = SPEC.check(str(tmp_path))
    assert "a.png" in problem
    assert SPEC.match(str(tmp_path / "x.txt")) == 0.0


def test_a_name_that_is_not_utf8_is_told_before_results_would_carry_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png")
    try:
        os.link(path, os.fsencode(tmp_path) + b"/P\xff1.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(DataError, match="\ufffd1" + r"\.png: its name is not UTF-8: rename the file"):
        SPEC.open(str(tmp_path), DataConfig())
