# SPDX-License-Identifier: Apache-2.0
"""Results of other programs are read with care: clear lines for what is wrong, nothing unpacked, nothing run."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detection.dota.merge import merge_tiles
from detection.dota.results_files import read_results
from detection.dota.sidecar import tile_of_name
from detection.problem import Detections
from vision3d.errors import DataError
from vision3d.run.arrays import write_arrays
from vision3d.types.images import BoxResult

SHIP = "P1 0.9 8 19 12 19 12 21 8 21\n"


def zipped(path: Path, **files: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/"), text)
    return path


def write_run(folder: Path, results: list[BoxResult]) -> Path:
    """As the runner stores results."""
    (folder / "arrays").mkdir(parents=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(r.to_json()) + "\n" for r in results))
    for index, result in enumerate(results):
        write_arrays(folder / "arrays" / f"{index:06d}.npz", result.arrays())
    return folder


def test_classes_come_by_the_alphabet_or_as_asked_for(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", **{"Task1_ship.txt": SHIP, "Task1_bridge.txt": "", "readme.md": "hello"})
    found, classes = read_results(path)
    assert classes == ("bridge", "ship")
    assert found["P1"].labels.tolist() == [1]
    assert found["P1"].boxes == pytest.approx(np.array([[10, 20, 4, 2, 0]]))
    found, classes = read_results(path, ["ship", "plane", "bridge"])
    assert (classes, found["P1"].labels.tolist()) == (("ship", "plane", "bridge"), [0])
    with pytest.raises(DataError, match="has results of the class 'bridge', which is none of ship"):
        read_results(path, ["ship"])


def test_windows_line_ends_blank_lines_and_folders_inside_a_zip(tmp_path: Path) -> None:
    text = SHIP.replace("\n", "\r\n") + "\r\n" + SHIP.replace("P1", "P2")
    found, _ = read_results(
        zipped(tmp_path / "a.zip", **{"out__Task1_ship.txt": text, "MACOSX__._Task1_ship.txt": "x"})
    )
    assert list(found) == ["P1", "P2"]


def test_task2_gives_upright_boxes_and_task1_counts_where_both_are(tmp_path: Path) -> None:
    (tmp_path / "Task2_ship.txt").write_text("P1 0.5 1 2 11 6\n")
    found, _ = read_results(tmp_path)
    assert found["P1"].boxes == pytest.approx(np.array([[6, 4, 10, 4, 0]]))
    (tmp_path / "Task1_ship.txt").write_text(SHIP)
    found, _ = read_results(tmp_path)
    assert found["P1"].scores.tolist() == [0.9]


def test_results_per_tile_are_merged_by_their_names(tmp_path: Path) -> None:
    """What MMRotate writes with merge_patches=False: scores of two digits, the same object in two tiles."""
    (tmp_path / "Task1_ship.txt").write_text(
        "P9__1024__0___0 0.98 900.00 10.00 940.00 10.00 940.00 20.00 900.00 20.00\n"
        "P9__1024__824___0 0.97 76.00 10.00 116.00 10.00 116.00 20.00 76.00 20.00\n"
        "P9__1024__824___0 0.50 476.00 10.00 516.00 10.00 516.00 20.00 476.00 20.00\n"
    )
    found, _ = read_results(tmp_path)
    whole = merge_tiles(found.items(), tile_of_name, 0.1)["P9"]
    assert whole.scores.tolist() == [0.98, 0.5]
    assert whole.boxes[1, :2].tolist() == [1320, 15]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("P1 0.9 8 19 12 19 12 21 8", "line 2: has 9 fields, not 10"),
        ("P1 0.9 8 19 12 19 12 21 8 x", "line 2: holds something that is no number"),
        ("P1 0.9 8 19 12 19 12 21 8 nan", "line 2: holds a number that is not finite"),
        ("P1 0.9 8 19 12 19 12 21 8 1e300", "line 2: holds a coordinate beyond all images"),
        ("P1 90 8 19 12 19 12 21 8 21", "line 2: its score is 90, not between 0 and 1"),
        ("P\udcff 0.9 8 19 12 19 12 21 8 21", "line 2: its image's name is not UTF-8"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "Task1_ship.txt"
    path.write_bytes((SHIP + line + "\n").encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as error:
        read_results(tmp_path)
    assert str(error.value).startswith(f"{path}: {message}")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(path, "Task1_ship.txt")
    with pytest.raises(DataError) as error:
        read_results(tmp_path / "z.zip")
    assert str(error.value).startswith(f"{tmp_path / 'z.zip' / 'Task1_ship.txt'}: {message}")


def test_archives_that_lead_elsewhere_or_are_damaged_are_refused(tmp_path: Path) -> None:
    for name in ("../Task1_ship.txt", "/Task1_ship.txt", "a/../../x.txt", "C:\\x.txt", "..\\x.txt"):
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
            archive.writestr(name, SHIP)
        with pytest.raises(DataError, match="leads out of the archive"):
            read_results(tmp_path / "bad.zip")
    path = zipped(tmp_path / "two.zip", **{"a__Task1_ship.txt": SHIP, "b__Task1_ship.txt": SHIP})
    with pytest.raises(DataError, match="two files of the class 'ship'"):
        read_results(path)
    data = bytearray(zipped(tmp_path / "torn.zip", **{"Task1_ship.txt": SHIP * 30}).read_bytes())
    data[60] ^= 255
    (tmp_path / "torn.zip").write_bytes(data)
    with pytest.raises(DataError, match="is damaged"):
        read_results(tmp_path / "torn.zip")
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []


def test_what_promises_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "a.zip", **{"Task1_ship.txt": SHIP})
    monkeypatch.setattr("detection.dota.results_files.LARGEST", 10)
    with pytest.raises(DataError, match="more than any results"):
        read_results(path)


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "results.pkl"
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(DataError, match="is a pickle, which can run code"):
        read_results(path)


@pytest.mark.parametrize("make", ["nothing", "empty", "text", "zip"])
def test_other_things_say_what_results_are(tmp_path: Path, make: str) -> None:
    path = tmp_path / make
    if make == "empty":
        path.mkdir()
    elif make == "text":
        path.write_text("hello")
    elif make == "zip":
        path = zipped(tmp_path / "x.zip", **{"a.txt": ""})
    with pytest.raises(DataError, match="run folder, a rotated COCO file with scores"):
        read_results(path)


def test_a_zip_in_a_folder_is_found(tmp_path: Path) -> None:
    zipped(tmp_path / "Task1.zip", **{"Task1_ship.txt": SHIP})
    zipped(tmp_path / "Another.zip", **{"x.txt": ""})
    assert list(read_results(tmp_path)[0]) == ["P1"]


def test_a_run_folder_is_read(tmp_path: Path) -> None:
    boxes = np.array([[10.0, 20, 8, 2, 0.25], [5, 5, 4, 4, 0.1]])
    one = BoxResult(
        "a", "ok", "", boxes, np.array([0.9, 0.123456789]), np.array([1, 0]), np.array([4, 2]), ("ship", "plane")
    )
    bad = BoxResult("b", "failed", "no boxes")
    run = write_run(tmp_path / "run", [one, bad])
    found, classes = read_results(run)
    assert classes == ("ship", "plane")
    assert found["a"].boxes == pytest.approx(boxes, abs=1e-15)
    assert found["a"].scores.tolist() == [0.9, 0.123456789]
    assert found["a"].ids is not None
    assert found["a"].ids.tolist() == [4, 2]
    assert len(found["b"]) == 0
    found, classes = read_results(run, ["plane", "bridge", "ship"])
    assert found["a"].labels.tolist() == [0, 2]
    with pytest.raises(DataError, match="line 1: has boxes of 'plane'"):
        read_results(run, ["ship"])
    (run / "arrays" / "000000.npz").unlink()
    with pytest.raises(DataError, match="is missing or damaged"):
        read_results(run)
    (run / "results.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="line 1: is no result with boxes"):
        read_results(run)


def test_rotated_coco_with_scores(tmp_path: Path) -> None:
    path = tmp_path / "rotated_coco.json"
    outline = [8, 19, 12, 19, 12, 21, 8, 21]
    data: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "P1.png"}, {"id": 8, "file_name": "scene.a"}],
        "categories": [{"id": 1, "name": "ship"}, {"id": 3, "name": "plane"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "bbox": [10, 20, 2, 4, 0.0], "score": 0.5},
            {"image_id": 7, "category_id": 1, "bbox": [8, 19, 4, 2], "segmentation": [outline], "score": 0.75},
        ],
    }
    path.write_text(json.dumps(data))
    found, classes = read_results(path)
    assert classes == ("ship", "plane")
    assert list(found) == ["P1", "scene.a"]
    assert found["P1"].labels.tolist() == [1, 0]
    assert found["P1"].boxes == pytest.approx(np.array([[10, 20, 4, 2, -np.pi / 2], [10, 20, 4, 2, 0]]))
    assert len(found["scene.a"]) == 0
    del data["annotations"][1]["score"]
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match="annotation 2 cannot be used as a detection"):
        read_results(path)
    path.write_text("[]")
    with pytest.raises(DataError, match="only numbers its images and classes"):
        read_results(path)
    path.write_text("{")
    with pytest.raises(DataError, match="is not valid JSON"):
        read_results(path)


def test_predictions_of_an_inferencer(tmp_path: Path) -> None:
    (tmp_path / "preds").mkdir()
    one = {"labels": [1, 0], "scores": [0.5, 0.25], "bboxes": [[10, 20, 4, 2, 0.5], [1, 2, 3, 1, 0]]}
    (tmp_path / "preds" / "P1.json").write_text(json.dumps(one))
    (tmp_path / "preds" / "P2.json").write_text(json.dumps({"labels": [], "scores": [], "bboxes": []}))
    with pytest.raises(DataError, match="only number their classes"):
        read_results(tmp_path)
    found, classes = read_results(tmp_path, ["ship", "plane"])
    assert classes == ("ship", "plane")
    assert found["P1"].labels.tolist() == [1, 0]
    assert len(found["P2"]) == 0
    with pytest.raises(DataError, match="has label 1, but there are 1 classes"):
        read_results(tmp_path, ["ship"])
    for wrong in (
        {"labels": [1]},
        {**one, "scores": [2, 0]},
        {**one, "bboxes": [[1, 2, 3], [1, 2, 3]]},
        {**one, "labels": "ab"},
    ):
        (tmp_path / "preds" / "P1.json").write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=r"P1\.json"):
            read_results(tmp_path, ["ship", "plane"])


def test_no_detection_at_all(tmp_path: Path) -> None:
    (tmp_path / "Task1_ship.txt").write_text("")
    found: dict[str, Detections]
    found, classes = read_results(tmp_path)
    assert (found, classes) == ({}, ("ship",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": None}, "is no COCO file"),
        ({"annotations": 3}, "is no COCO file"),
        ({"categories": [{"id": 1, "name": "boat"}]}, "annotation 1 .*class 'boat' is none of ship, plane"),
    ],
)
def test_damaged_coco_is_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "results.json"
    box = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [9, 9, 4, 2, 0]}
    data = {
        "images": [{"id": 1, "file_name": "P1.png"}],
        "categories": [{"id": 1, "name": "ship"}],
        "annotations": [box],
    }
    path.write_text(json.dumps({**data, **change}))
    with pytest.raises(DataError, match=message):
        read_results(path, ("ship", "plane"))


def test_json_that_no_reader_can_nest_and_text_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"deep\.json: is not valid JSON"):
        read_results(tmp_path / "deep.json")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(DataError, match=r"results\.jsonl: cannot be read"):
        read_results(tmp_path / "run")
