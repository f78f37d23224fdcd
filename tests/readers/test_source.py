# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from vision3d.errors import DataError
from vision3d.readers._source import bounded, find_roots, flag, one_root, parse_source, score, split_source


def has_mark(folder):
    return (folder / "mark").is_file()


def test_query_is_split_off_unless_it_is_part_of_a_file_name(tmp_path):
    assert split_source("a/b?x=1&y=&z=2,3") == ("a/b", {"x": "1", "y": "", "z": "2,3"})
    odd = tmp_path / "what?.mp4"
    odd.write_bytes(b"")
    assert split_source(str(odd)) == (str(odd), {})


def test_options_are_typed_and_unknown_ones_get_a_suggestion():
    schema = {"fov_deg": bounded(float, 1, 175), "exif": flag}
    assert parse_source("d?fov_deg=60&exif", schema) == ("d", {"fov_deg": 60.0, "exif": True})
    with pytest.raises(DataError, match=r"unknown option 'fov_dg'.*did you mean 'fov_deg'"):
        parse_source("d?fov_dg=60", schema)
    with pytest.raises(DataError, match=r"unknown option 'zzz'.*known: fov_deg, exif"):
        parse_source("d?zzz=60", schema)
    with pytest.raises(DataError, match="'fov_deg' cannot be '500': must lie between 1 and 175"):
        parse_source("d?fov_deg=500", schema)
    with pytest.raises(DataError, match="'exif' cannot be 'maybe'"):
        parse_source("d?exif=maybe", schema)


def test_a_data_set_is_found_up_to_two_levels_down_when_it_is_the_only_one(tmp_path):
    inner = tmp_path / "archive" / "scene"
    inner.mkdir(parents=True)
    (inner / "mark").touch()
    for start, depth in ((inner, 0), (inner.parent, 1), (tmp_path, 2)):
        assert find_roots(str(start), has_mark) == [inner]
        assert one_root(f"{start}?k=v", has_mark, "thing") == inner
        assert score(str(start), has_mark, 0.9) == pytest.approx(0.9 - 0.01 * depth)
    other = tmp_path / "archive" / "other"
    other.mkdir()
    (other / "mark").touch()
    assert score(str(tmp_path), has_mark, 0.9) == 0
    with pytest.raises(DataError, match=r"holds 2 data sets .*other.*scene.*; name one"):
        one_root(str(tmp_path), has_mark, "thing")


def test_nothing_found_is_told_apart_from_no_such_path(tmp_path):
    with pytest.raises(DataError, match="holds no thing"):
        one_root(str(tmp_path), has_mark, "thing")
    with pytest.raises(DataError, match="no such file or folder"):
        one_root(str(tmp_path / "absent"), has_mark, "thing")
    assert score(str(tmp_path / "absent"), has_mark, 0.9) == 0
