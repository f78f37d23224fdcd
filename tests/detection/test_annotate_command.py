# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from vision3d.cli.output import Output
from vision3d.cli.points import points
from vision3d.errors import UserError

SLOW_CALL = "import sys; from vision3d.cli.points import points; from vision3d.cli.output import Output; "
SLOW_CALL += "sys.exit(points([a for a in sys.argv[1:] if a != '--json'], Output('--json' in sys.argv)))"


@pytest.fixture
def folder(tmp_path):
    """Two images of 80 x 60 in a folder of their own."""
    for name in ("one", "two"):
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((60, 80, 3), 90, np.uint8))
    return tmp_path


@contextmanager
def page(*args):
    """The command in a process of its own, and the address it printed."""
    command = [sys.executable, "-c", SLOW_CALL, *map(str, args), "--no-browser"]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    try:
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"http://127\.0\.0\.1:\d+/\S+/", line):
                yield process, found[0]
                break
        else:
            raise AssertionError(said)
    finally:
        process.kill()
        process.communicate()


def put(url, index, rows, version=""):
    body = json.dumps({"version": version, "points": rows}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}api/image/{index}", body, headers, method="PUT")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["version"]


def test_nothing_is_lost_when_it_is_killed_and_the_next_call_goes_on(folder):
    with page(folder, "--classes", "plane,ship") as (process, url):
        version = put(url, 0, [[1, 2, 0]])
        put(url, 0, [[1, 2, 0], [3, 4, 1]], version)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    assert (folder / "points" / "one.txt").read_text() == "1.00 2.00 plane\n3.00 4.00 ship\n"
    assert (folder / "classes.txt").read_text() == "plane\nship\n"
    assert sorted(p.name for p in (folder / "points").iterdir()) == ["one.txt"]
    with page(folder, "--json") as (process, url):  # the classes are known by now
        with urllib.request.urlopen(f"{url}api/state", timeout=10) as answer:
            assert json.load(answer)["counts"] == [2, None]
        put(url, 1, [])
        process.send_signal(signal.SIGTERM)
        summary, _ = process.communicate(timeout=10)
        assert process.returncode == 0
    assert json.loads(summary) == {
        "out": str(folder),
        "classes": ["plane", "ship"],
        "n_images": 2,
        "n_annotated": 2,
        "n_points": 2,
    }


@pytest.fixture
def serve(monkeypatch, capsys):
    """The command with a server that ends at once, as by Ctrl-C; what the page would have shown."""
    from detection.annotate import server as module

    shown = {}

    def leave(self):
        shown.update(state=_state(self), url=self.url, server=self)
        raise KeyboardInterrupt

    monkeypatch.setattr(module.PointServer, "serve_forever", leave)
    monkeypatch.setattr("webbrowser.open", lambda url: shown.setdefault("opened", url) is not None)

    def run(*args):
        shown.clear()
        assert points([str(a) for a in args], Output(False)) == 0
        shown["said"] = capsys.readouterr()
        return shown

    return run


def _state(server):
    return {"names": server.images.names, "classes": server.store.classes, "folder": server.store.folder}


def test_where_points_go_and_what_the_classes_are(folder, serve):
    shown = serve(folder, "--classes", "plane, ship")
    assert shown["state"] == {"names": ("one", "two"), "classes": ("plane", "ship"), "folder": folder}
    assert shown["opened"] == shown["url"]
    assert "0 points in 0 of 2 images" in shown["said"].out
    other = folder / "elsewhere"
    assert serve(folder, "--classes", "a", "--out", other)["state"]["folder"] == other
    (folder / "classes.txt").write_text("tree\n")
    assert serve(folder)["state"]["classes"] == ("tree",)
    assert serve(folder, "--classes", "bush")["state"]["classes"] == ("bush",)
    assert "opened" not in serve(folder, "--no-browser")


def test_images_in_a_folder_of_that_name_have_their_points_beside_it(folder, serve):
    inner = folder / "images"
    inner.mkdir()
    for path in list(folder.glob("*.png")):
        path.rename(inner / path.name)
    for data in (folder, inner):
        shown = serve(data, "--classes", "a")
        assert shown["state"] == {"names": ("one", "two"), "classes": ("a",), "folder": folder}


def test_labels_beside_the_images_stay_readable(folder, serve):
    """classes.txt is the list of points and of labels: a list without a class of the labels would spoil these."""
    (folder / "images").mkdir()
    (folder / "labelTxt").mkdir()
    for path in list(folder.glob("*.png")):
        path.rename(folder / "images" / path.name)
        (folder / "labelTxt" / f"{path.stem}.txt").write_text("5 5 30 5 30 15 5 15 ship 0\n")
    with pytest.raises(UserError, match="has labels of the class 'ship', which --classes leaves out"):
        points([str(folder), "--classes", "plane", "--no-browser"], Output(False))
    assert serve(folder, "--classes", "plane,ship")["state"]["classes"] == ("plane", "ship")
    other = folder / "elsewhere"
    assert serve(folder, "--classes", "plane", "--out", other)["state"]["classes"] == ("plane",)


def test_data_of_a_reader_can_be_annotated(tmp_path, serve):
    from importlib.metadata import entry_points

    if "aerial" not in entry_points(group="vision3d.readers").names:
        pytest.skip("the reader 'aerial' is not installed: pip install -e . again")
    with pytest.raises(UserError, match="say where to write the points: --out FOLDER"):
        serve("aerial:sparse?scenes=2&size=96")
    shown = serve("aerial:sparse?scenes=2&size=96&classes=ship,plane", "--split", "train", "--out", tmp_path / "clicks")
    assert shown["state"]["names"] == ("train-000000", "train-000001")
    assert shown["state"]["classes"] == ("plane", "ship")
    assert shown["server"].images.size(1) == (96, 96)


def test_real_images_can_be_annotated_before_and_after_the_first_click(tmp_path, shared_data, serve):
    from importlib.metadata import entry_points

    if "dota" not in entry_points(group="vision3d.readers").names:
        pytest.skip("the reader 'dota' is not installed: pip install -e . again")
    source = shared_data / "dota_full"
    for part in ("images", "labelTxt"):
        (tmp_path / part).symlink_to(source / part)
    for _ in range(2):
        shown = serve(tmp_path)
        assert "small-vehicle" in shown["state"]["classes"]
        assert len(shown["state"]["names"]) == len(list((source / "images").iterdir()))
        # Once there is a first file, the others count as unlabelled for training; they must still be shown.
        shown["server"].store.save(
            shown["state"]["names"][0],
            [(5.0, 5.0, 0)],
            shown["server"].store.load(shown["state"]["names"][0])[1],
            (100, 100),
        )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "the following arguments are required: DATA (see vision3d points --help)"),
        (["DIR"], "name the classes: --classes plane,ship"),
        (["DIR", "--classes", "a,a"], "the class 'a' is named twice"),
        (["DIR", "--classes", "a", "--port", "70000"], "--port must lie between 0 and 65535, got 70000"),
        (["DIR", "--classes", "a", "--window", "5"], "--window must lie between 128 and 4096 pixels, got 5"),
        (["DIR/none", "--classes", "a"], "no such file or folder"),
    ],
)
def test_mistakes_are_one_line(folder, args, words):
    with pytest.raises(UserError) as error:
        points([a.replace("DIR", str(folder)) for a in args], Output(False))
    assert words in str(error.value)


def test_a_damaged_file_of_points_is_told_before_a_page_opens(folder):
    (folder / "points").mkdir()
    (folder / "points" / "two.txt").write_text("1 2 plane\n1 plane\n")
    with pytest.raises(UserError, match=r"two\.txt: line 2: is not 'x y class'"):
        points([str(folder), "--classes", "plane"], Output(False))


def test_two_images_of_one_name_are_told(folder):
    (folder / "one.jpg").write_bytes((folder / "one.png").read_bytes())
    with pytest.raises(UserError, match="has the same name as"):
        points([str(folder), "--classes", "plane"], Output(False))
