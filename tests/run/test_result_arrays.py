# SPDX-License-Identifier: Apache-2.0
"""Results with arrays: a file each, whole before its line is there, read when looked at, missed when it is gone."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vision3d.contracts import DataConfig
from vision3d.errors import DataError
from vision3d.run.store import ResultStore, copy_results


@pytest.fixture
def make(toys: Path, numbers: Callable[..., Path], tmp_path: Path) -> Callable[[], ResultStore]:
    from vision3d_toys import Curve, NumberReader

    data = numbers(4)
    return lambda: ResultStore(tmp_path / "out", Curve, NumberReader(str(data), DataConfig()))


def curve(index: int, scale: float = 1.0) -> Any:
    from vision3d_toys import Curve

    points = scale * np.arange(6, dtype=np.float32).reshape(2, 3) + index
    return Curve(f"n{index:03d}", points=points, count=np.array(2))


def failure(index: int) -> Any:
    from vision3d_toys import Curve

    return Curve(f"n{index:03d}", "failed", "no way")


def test_arrays_lie_beside_the_lines_and_come_back(make: Callable[[], ResultStore], tmp_path: Path) -> None:
    store = make()
    stored = [store.append(curve(0), {}), store.append(failure(1), {}), store.append(curve(2), {})]
    store.close()
    assert [p.name for p in sorted((tmp_path / "out/arrays").iterdir())] == [f"{i:06d}.npz" for i in range(3)]
    assert json.loads((tmp_path / "out/results.jsonl").read_text().splitlines()[0]) == {
        "name": "n000",
        "status": "ok",
        "reason": "",
    }
    again = make()
    for results in (stored, store.results, again.results, [*again.results[:2], again.results[-1]]):
        assert [r.status for r in results] == ["ok", "failed", "ok"]
        np.testing.assert_array_equal(results[2].points, curve(2).points)
        assert (results[0].count.shape, int(results[0].count), results[1].points) == ((), 2, None)
    assert again.previous.points.tobytes() == curve(2).points.tobytes()
    assert [(r.name, r.status, r.points) for r in again.heads] == [
        ("n000", "ok", None),
        ("n001", "failed", None),
        ("n002", "ok", None),
    ]
    again.close()


def test_what_is_stored_does_not_change_with_the_callers_array(make: Callable[[], ResultStore]) -> None:
    store = make()
    result = curve(0)
    stored = store.append(result, {})
    result.points[:] = -1
    np.testing.assert_array_equal(stored.points, curve(0).points)
    np.testing.assert_array_equal(store.results[0].points, curve(0).points)
    assert store.previous is stored
    store.close()


def test_arrays_are_not_held(make: Callable[[], ResultStore]) -> None:
    store = make()
    store.append(curve(0), {})
    store.append(curve(1), {})
    results = store.results
    seen = weakref.ref(results[0].points)
    gc.collect()
    assert seen() is None
    store.close()


def test_a_result_whose_arrays_are_gone_is_named(make: Callable[[], ResultStore], tmp_path: Path) -> None:
    store = make()
    for index in range(3):
        store.append(curve(index), {})
    store.close()
    path = tmp_path / "out/arrays/000001.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + b"x" * 9)
    with pytest.raises(
        DataError, match=r"000001\.npz: is damaged.*; line 2 of results\.jsonl needs it: delete the run"
    ):
        make()
    path.unlink()
    with pytest.raises(DataError, match=r"000001\.npz: is missing; line 2 of results\.jsonl needs it"):
        make()
    path.write_bytes(whole)
    assert len(make()) == 3


def test_arrays_without_a_line_are_written_anew(make: Callable[[], ResultStore], tmp_path: Path) -> None:
    """A kill between the two leaves the arrays of a result that does not count."""
    store = make()
    store.append(curve(0), {})
    store.append(curve(1), {})
    store.close()
    lines = (tmp_path / "out/results.jsonl").read_bytes()
    (tmp_path / "out/results.jsonl").write_bytes(lines[: lines.index(b"\n") + 9])
    again = make()
    assert len(again) == 1
    again.append(curve(1, 2.0), {})
    np.testing.assert_array_equal(again.results[1].points, curve(1, 2.0).points)
    again.close()


def test_a_copy_that_was_cut_short_is_made_anew(make: Callable[[], ResultStore], tmp_path: Path) -> None:
    store = make()
    for index in range(2):
        store.append(curve(index), {"total": 1.0})
    store.close()
    source, target = tmp_path / "out", tmp_path / "copy/zero"
    (target / "arrays").mkdir(parents=True)
    (target / "arrays/000000.npz").write_bytes(b"half")
    (target / "timing.jsonl").write_text("half")
    copy_results(source, target)

    def content(folder: Path) -> dict[str, bytes]:
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    assert content(target) == content(source)
    assert not (target / "results.jsonl").samefile(source / "results.jsonl")
    (source / "results.jsonl").write_text("")  # a complete copy is left alone
    copy_results(source, target)
    assert (target / "results.jsonl").read_text().count("\n") == 2
