# SPDX-License-Identifier: Apache-2.0
"""Files that survive a kill: result lines torn at every byte, whole files, strict JSON, digests."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision3d.contracts import DataConfig
from vision3d.errors import DataError
from vision3d.run import files
from vision3d.run.store import LineFile, ResultStore, failed
from vision3d.types import FrameTruth, PoseResult


def test_a_file_cut_at_any_byte_keeps_its_whole_lines_and_goes_on(tmp_path: Path) -> None:
    records = [{"name": f"é{i}", "value": 0.1 * i} for i in range(4)]
    whole = LineFile(tmp_path / "whole.jsonl")
    for record in records:
        whole.append(record)
    whole.close()
    data = (tmp_path / "whole.jsonl").read_bytes()
    path = tmp_path / "cut.jsonl"
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        lines = LineFile(path)
        kept = data[:length].count(b"\n")
        assert lines.records == records[:kept]
        for record in records[kept:]:
            lines.append(record)
        lines.close()
        assert path.read_bytes() == data


def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"name": "a"}\n{"na\n{"name": "c"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl: line 2 is damaged"):
        LineFile(path)


def store_of(folder: Path, toys_data: Path) -> ResultStore:
    from vision3d_toys import Guess, NumberReader  # type: ignore[import-not-found]

    return ResultStore(folder, Guess, NumberReader(str(toys_data), DataConfig()))


def test_results_are_what_is_read_back(toys: Path, numbers: Callable[..., Path], tmp_path: Path) -> None:
    from vision3d_toys import Guess

    store = store_of(tmp_path / "out", numbers(3))
    stored = store.append(Guess("n000", 0.1 + 0.2, draw=math.inf, timing_ms={"a": 1}), {"total": 1.23456789})
    assert stored == Guess("n000", 0.30000000000000004, draw=None)
    with pytest.raises(ValueError, match="step returned the result of 'n005' for sample 'n001'"):
        store.append(Guess("n005", 1.0), {})
    with pytest.raises(TypeError, match="step returned NoneType for n001, not Guess"):
        store.append(None, {})
    store.close()
    assert (tmp_path / "out" / "timing.jsonl").read_text() == '{"name": "n000", "total": 1.2346}\n'
    again = store_of(tmp_path / "out", numbers(3))
    assert list(again.results) == [stored]
    again.close()


def test_results_of_other_samples_are_refused(toys: Path, numbers: Callable[..., Path], tmp_path: Path) -> None:
    from vision3d_toys import Guess

    store = store_of(tmp_path / "out", numbers(3))
    store.append(Guess("n000", 1.0), {})
    store.close()
    with pytest.raises(DataError, match=r"results\.jsonl: line 1 is of sample n000, but the data has other there"):
        store_of(tmp_path / "out", numbers(3, row0=["other", 1.0, 2.0]))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=16, max_size=16))
def test_a_pose_is_restored_to_the_last_bit(values: list[float]) -> None:
    T = np.array(values).reshape(4, 4)
    result = PoseResult("a", T, "ok", covariance=np.full((6, 6), np.pi), extra={"n": np.int64(3), "x": np.float32(0.1)})
    back = PoseResult.from_json(json.loads(files.json_line(result.to_json())))
    assert back.T_world_cam is not None
    assert back.T_world_cam.tobytes() == T.tobytes()
    assert back.extra == {"n": 3, "x": float(np.float32(0.1))}


def test_json_is_strict() -> None:
    value = {
        "a": [np.nan, np.inf, np.float32(1.5)],
        "b": np.array([[1, 2]]),
        "c": {2, 1},
        "d": Path("x/y"),
        3: np.True_,
    }
    assert files.json_line(value) == '{"a": [null, null, 1.5], "b": [[1, 2]], "c": [1, 2], "d": "x/y", "3": true}'
    with pytest.raises(TypeError, match="object cannot be written as JSON"):
        files.json_line(object())


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def write_half() -> None:
        with files.whole_file(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_reading_json_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json: cannot be read \(No such file"):
        files.read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json: is not valid JSON"):
        files.read_json(tmp_path / "a.json")


def test_digests_tell_values_apart() -> None:
    values = [
        None,
        0,
        0.0,
        "0",
        [],
        [[]],
        {},
        {"a": 1},
        {"b": 1},
        ["a", 1],
        np.zeros(2),
        np.zeros((2, 1)),
        np.zeros(2, np.float32),
        FrameTruth(np.eye(4)),
        FrameTruth(2 * np.eye(4)),
    ]
    assert len({files.digest(value) for value in values}) == len(values)
    assert files.digest(FrameTruth(np.eye(4))) == files.digest(FrameTruth(np.asfortranarray(np.eye(4))))


def test_folder_digest_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "log.txt").write_text("1")
    first = files.folder_digest(tmp_path, frozenset({"log.txt"}))
    (tmp_path / "log.txt").write_text("2")
    assert files.folder_digest(tmp_path, frozenset({"log.txt"})) == first
    (tmp_path / "a").rename(tmp_path / "b")
    assert files.folder_digest(tmp_path, frozenset({"log.txt"})) != first


def test_what_counts_as_a_failure() -> None:
    assert failed(PoseResult("a", None, "bad_input"))
    assert not failed(PoseResult("a", np.eye(4), "ok"))
    assert not failed(object())
