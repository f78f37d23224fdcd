# SPDX-License-Identifier: Apache-2.0
"""`vision3d split`: from a folder of DOTA to tiles that its reader takes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from tile_toys import position_image, rows_of_boxes

from detection.dota.sidecar import read_sidecar
from vision3d.cli import main
from vision3d.contracts import DataConfig
from vision3d.errors import UserError
from vision3d.geometry import rotated
from vision3d.readers.dota import SPEC


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    def run(*args: object, code: int = 0) -> tuple[str, str]:
        found = main(["split", *map(str, args)])
        out, err = capsys.readouterr()
        assert found == code, err
        return out, err

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("images", "labelTxt"):
        (folder / name).mkdir(parents=True)
    for i in range(3):
        boxes, labels = rows_of_boxes(300, 200, 24, seed=i)
        cv2.imwrite(str(folder / "images" / f"P{i}.png"), position_image(300, 200)[..., ::-1])
        quads = rotated.corners(boxes).reshape(-1, 8).round(2)
        words = ["plane", "ship", "small-vehicle"]
        lines = [f"{' '.join(map(str, quad))} {words[label]} 0" for quad, label in zip(quads, labels)]
        (folder / "labelTxt" / f"P{i}.txt").write_text("\n".join(["imagesource:x", "gsd:0.3", *lines]) + "\n")
    return folder


def test_tiles_are_a_data_set_again(call: Callable[..., tuple[str, str]], data: Path, tmp_path: Path) -> None:
    out, _ = call(data, tmp_path / "tiles", "--window", 128, "--gap", 40, "--json")
    found = json.loads(out)
    assert (found["images"], found["tiles"], found["forced"], found["reader"]) == (3, 3 * 3 * 2, 0, "dota")
    reader = SPEC.open(str(tmp_path / "tiles"), DataConfig())
    sidecar = read_sidecar(tmp_path / "tiles")
    assert [reader.key(i) for i in range(len(reader))] == sorted(sidecar.windows)
    whole = SPEC.open(str(data), DataConfig())
    wanted = {whole.key(i): whole.truth(i) for i in range(3)}
    seen: dict[str, set[int]] = {name: set() for name in wanted}
    objects = 0
    for i in range(len(reader)):
        name = reader.key(i)
        truth, tile = reader.truth(i), sidecar.tile(name)
        assert tile is not None
        there = tile.to_image(truth.boxes)
        near = np.hypot(*(there[:, None, :2] - wanted[tile.image].boxes[None, :, :2]).T).T
        rows = near.argmin(1)
        assert near.min(1).max(initial=0) < 1e-6
        names = np.array(wanted[tile.image].classes)[wanted[tile.image].labels[rows]]
        assert (np.array(truth.classes)[truth.labels] == names).all()
        seen[tile.image] |= set(rows.tolist())
        objects += len(rows)
    assert objects == found["objects"]
    assert all(len(rows) == 24 for rows in seen.values())


def test_the_command_says_what_it_did_and_may_be_repeated(
    call: Callable[..., tuple[str, str]], data: Path, tmp_path: Path
) -> None:
    words = (data, tmp_path / "tiles", "--window", 128, "--gap", 40, "--select", "-2::", "--rates", 0.5, 1, "--resize")
    out, _ = call(*words, "--min-filled", 0.4)
    assert out.startswith(f"{tmp_path / 'tiles'}: ")
    assert out.endswith("tiles of 2 images\n")
    assert call(*words, "--min-filled", 0.4)[0] == out
    _, err = call(*words, "--min-filled", 0.3, code=2)
    assert err.splitlines()[-1].endswith("exists already and is not an empty folder; choose another one")


def test_a_bad_label_stops_it_or_is_counted(call: Callable[..., tuple[str, str]], data: Path, tmp_path: Path) -> None:
    with open(data / "labelTxt" / "P1.txt", "a") as file:
        file.write("1 2 3 4 5 6 7 8 spaceship 0\n")
    _, err = call(data, tmp_path / "tiles", "--window", 128, "--gap", 40, code=2)
    assert "P1.txt" in err.splitlines()[-1]
    assert "line 27" in err.splitlines()[-1]
    assert not (tmp_path / "tiles").exists()
    out, _ = call(data, tmp_path / "tiles", "--window", 128, "--gap", 40, "--skip-bad", "--json")
    found = json.loads(out)
    assert found["images"] + len(found["bad"]) == 3


def test_points_clicked_since_a_split_was_stopped_are_not_mixed_with_older_ones(
    call: Callable[..., tuple[str, str]], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detection.dota import split as module

    def stopped(*args: object) -> None:
        raise UserError("stopped")

    (data / "points").mkdir()
    for i in range(3):
        (data / "points" / f"P{i}.txt").write_text("20 20 ship\n")
    words = (data, tmp_path / "tiles", "--window", 128, "--gap", 40, "--points")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_finish", stopped)
        call(*words, code=2)
    (data / "points" / "P1.txt").write_text("20 20 plane\n")
    _, err = call(*words, code=2)
    assert "an unfinished split of other data or options" in err.splitlines()[-1]
    (data / "points" / "P1.txt").write_text("20 20 ship\n")
    assert "3 images were done" in call(*words)[0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("DATA", "split needs DATA and OUT"),
        ("DATA out --gap 2000", "tiles.gap is 2000: must be less than the window, 1024"),
        ("DATA out --rates 0", "tiles.rates is (0.0,)"),
        ("DATA out --windows 5", "unrecognized arguments: --windows"),
        ("nowhere out", "nowhere: no such file or folder"),
        ("DATA DATA", "exists already and is not an empty folder"),
        ("bodies:boxes out", "gives samples of type CloudPair, split takes LabeledImage"),
    ],
)
def test_mistakes_are_one_line(
    call: Callable[..., tuple[str, str]],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    _, err = call(*(str(data) if word == "DATA" else word for word in args.split()), code=2)
    assert message in err.splitlines()[-1]
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["split", "--help"])
    assert "vision3d split dota/train tiles" in capsys.readouterr().out
