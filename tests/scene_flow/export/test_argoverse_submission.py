# SPDX-License-Identifier: Apache-2.0
"""Argoverse 2 submissions: names, numbers, frames, types; and a checker that sees what is wrong with one."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scene_flow.export.argoverse import write_submission
from scene_flow.export.argoverse_check import check_submission
from vision3d.errors import DataError, UserError
from vision3d.types import FlowResult

pa = pytest.importorskip("pyarrow")
feather = pytest.importorskip("pyarrow.feather")

START_NS, SWEEP_NS = 315966265259836000, 100_000_000
LOGS = ("0c6e62d7-bdfa-3061-8d3d-03b13aa21f68", "7fab2350-7eaf-3b7e-a39d-6937a4c1bede")


def turn() -> np.ndarray:
    c, s = np.cos(0.1), np.sin(0.1)
    return np.array([[c, -s, 0, 0.9], [s, c, 0, -0.1], [0, 0, 1, 0.01], [0, 0, 0, 1.0]])


def result(log: str, sweep: int, n: int = 30, **given: Any) -> FlowResult:
    """A third of the points moves 1 m to the left, in the first sweep's frame; the others stand."""
    rng = np.random.default_rng(sweep)
    points, T = rng.normal(0, 15, (n, 3)).astype(np.float32), turn()
    p = points.astype(np.float64)
    moved = p + np.where(np.arange(n) % 3 == 0, 1.0, 0.0)[:, None] * [0, 1, 0]
    flow = (moved @ T[:3, :3].T + T[:3, 3] - p).astype(np.float32)
    # Sweeps do not come to the nanosecond.
    stamp = START_NS + sweep * SWEEP_NS + int(rng.integers(-2_000_000, 2_000_000))
    full = {"points": points, "flow": flow, "T_target_source": T}
    return FlowResult(f"{log}/{stamp}", "ok", **(full | given))


def tables(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".feather")]
        return {name: feather.read_table(io.BytesIO(archive.read(name))) for name in names}


def vectors(table: Any) -> np.ndarray:
    return np.stack([table[c].to_numpy() for c in ("flow_tx_m", "flow_ty_m", "flow_tz_m")], axis=1)


def test_first_version_is_the_whole_flow_under_the_sweeps_time(tmp_path: Path) -> None:
    results = [result(log, sweep) for log in LOGS for sweep in (3, 8)]
    path = write_submission(tmp_path / "v1.zip", results, 1, supervised=False)
    found = tables(path)
    assert list(found) == sorted(f"{r.name}.feather" for r in results)
    for r in results:
        table = found[f"{r.name}.feather"]
        assert table.column_names == ["flow_tx_m", "flow_ty_m", "flow_tz_m", "is_dynamic"]
        assert [str(t) for t in table.schema.types] == ["halffloat"] * 3 + ["bool"]
        assert vectors(table) == pytest.approx(r.flow, abs=2e-3)
        assert np.array_equal(table["is_dynamic"].to_numpy(), np.arange(30) % 3 == 0)
    assert check_submission(path) == []
    assert check_submission(path, dict.fromkeys(found, 30)) == []


def test_first_version_takes_the_methods_word_for_what_moves(tmp_path: Path) -> None:
    said = np.arange(30) < 7
    (table,) = tables(
        write_submission(tmp_path / "v1.zip", [result(LOGS[0], 0, dynamic=said)], 1, supervised=False)
    ).values()
    assert np.array_equal(table["is_dynamic"].to_numpy(), said)


@pytest.mark.parametrize("packed", [True, False])
def test_first_version_keeps_the_points_of_the_mask(tmp_path: Path, packed: bool) -> None:
    r = result(LOGS[0], 0)
    mask = np.arange(30) % 2 == 0
    file = tmp_path / "masks" / f"{r.name}.feather"
    file.parent.mkdir(parents=True)
    feather.write_feather(pa.table({"mask": mask}), file)
    masks = tmp_path / "masks"
    if packed:
        with zipfile.ZipFile(tmp_path / "masks.zip", "w") as archive:
            archive.write(file, f"{r.name}.feather")
        masks = tmp_path / "masks.zip"
    path = write_submission(tmp_path / "v1.zip", [r], 1, supervised=False, masks=masks)
    (table,) = tables(path).values()
    assert vectors(table) == pytest.approx(r.flow[mask], abs=2e-3)
    with pytest.raises(DataError, match=r"holds no .*feather"):
        write_submission(tmp_path / "v.zip", [result(LOGS[1], 0)], 1, supervised=False, masks=masks)
    short = replace(result(LOGS[0], 0, n=20), name=r.name)
    with pytest.raises(DataError, match="mask has 30 rows, its sweep 20 points"):
        write_submission(tmp_path / "v.zip", [short], 1, supervised=False, masks=masks)
    assert not (tmp_path / "v.zip").exists()


@pytest.mark.parametrize("every", [1, 5])
def test_second_version_numbers_every_fifth_pair(tmp_path: Path, every: int) -> None:
    sweeps = range(0, 13, every)
    results = [result(log, sweep) for sweep in reversed(sweeps) for log in LOGS]  # in no useful order
    path = write_submission(tmp_path / "v2.zip", results, 2, supervised=True)
    found = tables(path)
    assert list(found) == [f"{log}/{i:010d}.feather" for log in LOGS for i in (0, 5, 10)]
    for log in LOGS:
        for i in (0, 5, 10):
            table = found[f"{log}/{i:010d}.feather"]
            assert table.column_names == ["is_valid", "flow_tx_m", "flow_ty_m", "flow_tz_m"]
            assert table["is_valid"].to_numpy().all() and table.num_rows == 30
            # The sensor's motion is gone and the vector is in the first sweep's frame: 1 m to the left, or nothing.
            expected = np.where(np.arange(30) % 3 == 0, 1.0, 0.0)[:, None] * [0, 1, 0]
            assert vectors(table) == pytest.approx(expected, abs=1e-3)
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("metadata.json")) == {"Is Supervised?": True}
    assert check_submission(path) == []
    assert check_submission(path, dict.fromkeys(LOGS, 13)) == []


def test_a_missing_sweep_does_not_shift_the_clock(tmp_path: Path) -> None:
    results = [result(LOGS[0], sweep) for sweep in range(12) if sweep != 3]
    found = tables(write_submission(tmp_path / "v2.zip", results, 2, supervised=False))
    assert [name[-8 - 10 :] for name in found] == ["0000000000.feather", "0000000005.feather", "0000000010.feather"]


def test_same_flow_same_zip_whatever_the_order(tmp_path: Path) -> None:
    results = [result(log, sweep) for log in LOGS for sweep in range(6)]
    for version in (1, 2):
        one = write_submission(tmp_path / "a.zip", results, version, supervised=False)
        other = write_submission(tmp_path / "b.zip", results[::-1], version, supervised=False)
        assert one.read_bytes() == other.read_bytes()
        with zipfile.ZipFile(one) as archive:
            assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_results_that_make_no_submission(tmp_path: Path) -> None:
    def refuse(results: list[FlowResult], match: str, version: Any = 1) -> None:
        with pytest.raises(UserError, match=match):
            write_submission(tmp_path / "a.zip", results, version, supervised=False)
        assert not list(tmp_path.iterdir())

    good = result(LOGS[0], 0)
    refuse([replace(good, name="000002")], "pair '000002' is not named <log>/<stamp in ns>")
    refuse([FlowResult(good.name, "failed", "nothing")], "has no flow (.nothing.); the server refuses gaps")
    refuse([replace(good, T_target_source=None)], "sensor's motion is not known")
    refuse([replace(good, axes="camera")], "camera axes")
    refuse([result(LOGS[0], s) for s in (0, 2, 4)], r"pairs start 0\.20 s apart", version=2)


def test_reads_one_result_at_a_time(tmp_path: Path) -> None:
    asked: list[int] = []

    class Lazy:
        def __len__(self) -> int:
            return 6

        def __getitem__(self, i: int) -> FlowResult:
            if not 0 <= i < 6:
                raise IndexError(i)
            asked.append(i)
            return result(LOGS[0], i)

    path = write_submission(tmp_path / "a.zip", Lazy(), 2, supervised=False)  # type: ignore[arg-type]
    assert check_submission(path) == [] and asked == [*range(6), 0, 5]


GOOD_V1 = {"flow_tx_m": np.float16, "flow_ty_m": np.float16, "flow_tz_m": np.float16, "is_dynamic": bool}


def table_of(types: dict[str, Any], n: int = 4, **columns: Any) -> bytes:
    sink = io.BytesIO()
    feather.write_feather(pa.table({name: np.zeros(n, kind) for name, kind in types.items()} | columns), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("log/12.feather", b"nonsense", "log/12.feather: is not a Feather file"),
        ("log/12.feather", {"flow_tx_m": np.float32}, "log/12.feather: flow_tx_m is float, not float16"),
        ("log/12.feather", {"is_dynamic": np.uint8}, "log/12.feather: is_dynamic is uint8, not bool"),
        ("log/12.feather", {"is_valid": bool}, "log/12.feather: has a column is_valid too many"),
        ("log/twelve.feather", {}, "log/twelve.feather: its name must be the sweep's time in ns"),
        ("12.feather", {}, "12.feather: is not <log>/<name>.feather"),
        ("log/a/12.feather", {}, "log/a/12.feather: is not <log>/<name>.feather"),
        ("log/readme.txt", {}, "log/readme.txt: is not <log>/<name>.feather"),
    ],
)
def test_first_version_checked(tmp_path: Path, name: str, data: Any, problem: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("log/11.feather", table_of(GOOD_V1))
        archive.writestr(name, data if isinstance(data, bytes) else table_of(GOOD_V1 | data))
    (found,) = check_submission(tmp_path / "a.zip")
    assert found.startswith(problem)


def test_numbers_in_files_are_checked(tmp_path: Path) -> None:
    folder = tmp_path / "sub" / "log"
    folder.mkdir(parents=True)
    flow = np.zeros(4, np.float16)
    (folder / "11.feather").write_bytes(table_of(GOOD_V1, flow_tx_m=np.array([np.nan, 0, np.inf, 1], np.float16)))
    (folder / "12.feather").write_bytes(table_of(GOOD_V1, flow_ty_m=flow + np.float16(900)))
    (folder / "13.feather").write_bytes(table_of(GOOD_V1, n=0))
    (folder / "14.feather").write_bytes(table_of({k: v for k, v in GOOD_V1.items() if k != "is_dynamic"}))
    assert check_submission(tmp_path / "sub") == [
        "log/11.feather: flow_tx_m holds 2 numbers that are not finite",
        "log/12.feather: flow_ty_m holds 4 motions above 20 m in a tenth of a second",
        "log/13.feather: has no rows",
        "log/14.feather: has no column is_dynamic",
    ]


def test_expected_files_and_rows_of_the_first_version(tmp_path: Path) -> None:
    results = [result(LOGS[0], 0), result(LOGS[0], 5)]
    path = write_submission(tmp_path / "a.zip", results, 1, supervised=False)
    names = [f"{r.name}.feather" for r in results]
    assert check_submission(path, {names[0]: 29, "other/1.feather": 3}) == [
        "other/1.feather: is missing",
        f"{names[1]}: is not asked for",
        f"{names[0]}: has 30 rows, must have 29 (the points of the official mask)",
    ]


def test_second_version_checked(tmp_path: Path) -> None:
    good = {"is_valid": bool, "flow_tx_m": np.float16, "flow_ty_m": np.float32, "flow_tz_m": np.float64}
    valid = np.ones(4, dtype=bool)

    def check(metadata: str, names: list[str], **columns: Any) -> list[str]:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("metadata.json", metadata)
            for name in names:
                archive.writestr(name, table_of(good, **({"is_valid": valid} | columns)))
        return check_submission(tmp_path / "a.zip", {"log": 7} if "log/0000000000.feather" in names else None)

    fine, names = '{"Is Supervised?": false}', ["log/0000000000.feather", "log/0000000005.feather"]
    assert check(fine, names) == []
    assert check("{}", names) == ['metadata.json: must hold "Is Supervised?": true or false']
    assert check("{", names)[0].startswith("metadata.json: is not JSON")
    assert check(fine, ["log/5.feather"]) == [
        "log/5.feather: its name must be ten digits, 0000000000, 0000000005, ...",
        "log: files must be numbered 0, 5, 10, ... without a gap; 5 is not in the row",
    ]
    assert check(fine, names[1:]) == [
        "log: files must be numbered 0, 5, 10, ... without a gap; 0000000005 is not in the row"
    ]
    assert check(fine, names[:1]) == ["log/0000000005.feather: is missing"]
    assert check(fine, [*names, "log/0000000010.feather"]) == ["log/0000000010.feather: is not asked for"]
    assert "is_valid is false for some points" in check(fine, names, is_valid=~valid)[0]


def test_unreadable_and_empty_submissions(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no zip")
    assert "cannot be read" in check_submission(tmp_path / "a.zip")[0]
    assert "cannot be read" in check_submission(tmp_path / "none.zip")[0]
    (tmp_path / "empty").mkdir()
    assert check_submission(tmp_path / "empty") == [f"{tmp_path / 'empty'}: holds no .feather file"]
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("log/1.feather", table_of(GOOD_V1))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("log/1.feather", table_of(GOOD_V1))
    assert check_submission(tmp_path / "b.zip") == ["log/1.feather: is in the archive more than once"]
