# SPDX-License-Identifier: Apache-2.0
"""Arrays on disk: every type and shape comes back, equal arrays are equal bytes, damage is a DataError."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vision3d.errors import DataError
from vision3d.run.arrays import check_arrays, read_arrays, write_arrays

PLAIN = hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.floating_dtypes() | hnp.unicode_string_dtypes(max_len=4)
ARRAY = hnp.arrays(PLAIN, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
quick = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


def sample() -> dict[str, Any]:
    return {
        "flow": np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3),
        "step": np.array(7, dtype=np.int64),
        "flags": np.array([0, 255], dtype=np.uint8),
        "none": np.zeros((0, 3), dtype=np.float32),
    }


@quick
@given(st.dictionaries(st.text(st.characters(codec="ascii", categories=["L"]), min_size=1), ARRAY, max_size=4))
def test_arrays_come_back(tmp_path: Path, arrays: dict[str, Any]) -> None:
    write_arrays(tmp_path / "a.npz", arrays)
    check_arrays(tmp_path / "a.npz")
    back = read_arrays(tmp_path / "a.npz")
    assert list(back) == list(arrays)
    for name, wanted in arrays.items():
        assert (back[name].dtype, back[name].shape) == (wanted.dtype, wanted.shape)
        assert back[name].tobytes() == wanted.tobytes()
        assert back[name].flags.writeable


def test_equal_arrays_are_equal_bytes(tmp_path: Path) -> None:
    turned = {name: np.asarray(array, order="F") for name, array in sample().items()}
    write_arrays(tmp_path / "a.npz", sample())
    write_arrays(tmp_path / "b.npz", turned)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_objects_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_arrays(tmp_path / "a.npz", {"o": np.array([None])})
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (read_arrays, check_arrays):
        with pytest.raises(DataError, match=r"a\.npz: is missing"):
            read(tmp_path / "a.npz")


def test_a_file_cut_anywhere_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_arrays(path, sample())
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        for read in (read_arrays, check_arrays):
            with pytest.raises(DataError, match=r"a\.npz: is damaged"):
                read(path)


@quick
@given(st.data())
def test_a_flipped_byte_is_noticed_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    """Names and sizes in the archive's directory have no checksum, but no array may change silently."""
    path = tmp_path / "a.npz"
    write_arrays(path, sample())
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        back = read_arrays(path)
    except DataError:
        return
    assert sorted(array.tobytes() for array in back.values()) == sorted(a.tobytes() for a in sample().values())


def test_a_header_that_promises_too_much_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"shape": (10**13,), "fortran_order": False, "descr": "<f8"})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("000000/a.npy", header.getvalue())
        archive.comment = b"1 arrays"
    with pytest.raises(DataError, match="not as long as its header says"):
        read_arrays(tmp_path / "a.npz")


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"a\.npz: is damaged"):
        read_arrays(tmp_path / "a.npz")
