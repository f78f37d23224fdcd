# SPDX-License-Identifier: Apache-2.0
"""Every pipeline on every reader of its sample type, through the command line: fit on some samples, eval on others.

A reader or a pipeline that is added to the project without a row here fails the test; nothing is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from readers import box_layouts, cloud_layouts, layouts

from vision3d.cli import main
from vision3d.contracts import DataConfig
from vision3d.run import registry

FRAMES = 8
SFM_FRAMES = 12  # structure from motion needs some more
TRAIN, TEST, N_TEST = ":8:2", "1:5:2", 2


@cache
def room(width: int, height: int, frames: int = FRAMES) -> layouts.Posed:
    """Frames 9 degrees apart of the synthetic room, with their true poses."""
    spec = registry.load(registry.READERS, "synthetic")
    reader = spec.open(f"synthetic:room?frames=40&noise=1&width={width}&height={height}", DataConfig())
    return [(reader[i], reader.truth(i).T_world_cam) for i in range(frames)]


def images(root: Path, posed: layouts.Posed) -> str:
    for i, (frame, _) in enumerate(posed):
        layouts.write_image(root / f"{i:03d}.png", frame)
    return f"{root}?fov_deg=62.7"


def video(root: Path, posed: layouts.Posed) -> str:
    root.mkdir(parents=True)
    writer = cv2.VideoWriter(str(root / "walk.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (320, 240))
    for frame, _ in posed:
        writer.write(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
    writer.release()
    return f"{root / 'walk.mp4'}?every=1&fov_deg=62.7"


# reader -> writes a data set of at least `FRAMES` frames into a folder and returns what a user would type
FRAME_DATA: dict[str, Callable[[Path], object]] = {
    "7scenes": lambda root: layouts.seven_scenes(root, room(640, 480)),
    "cambridge": lambda root: layouts.cambridge(root, room(320, 240)),
    "colmap": lambda root: layouts.colmap(root, room(320, 240)),
    "images": lambda root: images(root, room(320, 240, SFM_FRAMES)),
    "posed": lambda root: layouts.posed_folder(root, room(320, 240)),
    "synthetic": lambda root: "synthetic:room?frames=40&noise=1&width=320&height=240",
    "transforms": lambda root: layouts.transforms(root, room(320, 240)),
    "tum": lambda root: layouts.tum(root, room(640, 480)),
    "video": lambda root: video(root, room(320, 240, SFM_FRAMES)),
}
# Generated scenes are held to the size of the others by their option.
PAIR_DATA: dict[str, Callable[[Path], object]] = {
    **cloud_layouts.CLOUD_DATA,
    "bodies": lambda root: "bodies:boxes?scenes=8&points=700",
}


def pictures(root: Path) -> Path:
    """Images without labels: a detector runs on them, and there is nothing to fit or to score."""
    root.mkdir(parents=True)
    for k in range(FRAMES):
        cv2.imwrite(str(root / f"{k}.png"), np.random.default_rng(k).integers(0, 255, (128, 128, 3), dtype=np.uint8))
    return root


BOX_DATA: dict[str, Callable[[Path], object]] = {
    **box_layouts.BOX_DATA,
    "aerial": lambda root: "aerial:mixed?scenes=8&size=128",
    "pictures": pictures,
}
DATA = {"Frame": FRAME_DATA, "CloudPair": PAIR_DATA, "LabeledImage": BOX_DATA}
PARTS = ("labeller", "detector")
# pipeline -> options that make it quick on data this small
NETWORK = ["--train.steps", "2", "--train.batch", "2", "--train.points", "128", "--network.points", "256"]
TINY = ["backbone.width", "8", "backbone.channels", "16", "train.steps", "2", "train.batch", "1", "train.crop", "128"]
LABELLER, DETECTOR = ([f"--{part}.{word}" if k % 2 == 0 else word for k, word in enumerate(TINY)] for part in PARTS)
OPTIONS: dict[str, list[str]] = {
    "favor": ["--features.name", "sift", "--landmarks.max-landmarks", "300"],
    "sctn": [*NETWORK, "--network.size", "small", "--network.voxel-size-m", "0.3"],
    "flot": NETWORK,
    "pseudo-boxes": LABELLER,
    "rotated-fcos": DETECTOR,
    "pointobb": [*LABELLER, *DETECTOR],
}
EVAL_OPTIONS: dict[str, list[str]] = {"nsfp": ["--nsfp.iterations", "20", "--nsfp.points", "256"]}
# What only costs time here: that baselines and seeds work is tested elsewhere.
ALONE = {"CloudPair": ["--no-baselines", "--seeds", "1"], "LabeledImage": ["--no-baselines"]}

OURS = "vision3d"


def ours(group: str) -> list[registry.Listing]:
    return [item for item in registry.listing(group) if item.package == OURS]


def pairs() -> list[tuple[str, str, str]]:
    return [
        (p.name, r.name, p.samples)
        for p in ours(registry.PIPELINES)
        for r in ours(registry.READERS)
        if p.samples == r.samples
    ]


def test_every_plug_in_is_here() -> None:
    pipelines, readers = ours(registry.PIPELINES), ours(registry.READERS)
    assert pipelines, "vision3d is not installed: pip install -e ."
    assert readers
    assert not [f"{item.name}: {item.problem}" for item in (*pipelines, *readers) if item.problem]
    assert {p.samples for p in pipelines} <= set(DATA)
    for samples, rows in DATA.items():
        assert {r.name for r in readers if r.samples == samples} == set(rows)


# Readers whose samples lack something. What is learned is then learned elsewhere, and what has no truth is not scored.
NO_TRUTH = ("points", "pictures")
NO_POINTS = ("pictures",)
NEEDS = {"pseudo-boxes": "points", "oracle": "truth"}  # what a pipeline cannot do without, in step or in score


def train_source(pipeline: str, reader: str, source: str, folder: Path) -> str:
    """Where a pipeline is fitted: on the data itself if that has what it learns from."""
    lacks = reader in NO_POINTS or (pipeline == "rotated-fcos" and reader in NO_TRUTH)
    return str(BOX_DATA["dior"](folder)) if lacks else source


@pytest.mark.parametrize(("pipeline", "reader", "samples"), pairs(), ids=lambda value: str(value))
def test_fit_and_eval(
    pipeline: str,
    reader: str,
    samples: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VISION3D_CACHE", str(tmp_path / "cache"))
    source = str(DATA[samples][reader](tmp_path / "data"))
    spec = registry.load(registry.PIPELINES, pipeline)
    common = ["--threads", "1"] + (["--size", "320"] if samples == "Frame" else [])
    if spec.has_fit:
        learned = train_source(pipeline, reader, source, tmp_path / "learned")
        fit = ["fit", pipeline, learned, "--out", "model", "--select", TRAIN, *common, *OPTIONS.get(pipeline, [])]
        assert main(fit) == 0, capsys.readouterr().err
    model = ["--model", "model"] if spec.has_fit else []
    if pipeline == "detections":
        model = ["--results", results_file(reader, source, capsys)]
    capsys.readouterr()
    verb = "run" if reader in NO_TRUTH else "eval"
    alone = [*(ALONE.get(samples, []) if verb == "eval" else []), *EVAL_OPTIONS.get(pipeline, [])]
    code = main([verb, pipeline, source, *model, "--select", TEST, "--pictures", "1", "--json", *common, *alone])
    out, err = capsys.readouterr()
    lacks = {"points"} if reader in NO_POINTS else set()
    lacks |= {"truth"} if reader in NO_TRUTH else set()
    if NEEDS.get(pipeline) in lacks:
        assert code == 2
        assert "Traceback" not in err
        return
    assert code == 0, err
    assert f"reader: {reader} (guessed" in err or source.startswith(f"{reader}:")
    found = json.loads(out)
    assert (found["data"]["reader"], found["n_frames"]) == (reader, N_TEST)
    assert found["metrics"] or verb == "run"
    assert found["n_failed"] < found["n_frames"], found["failures"]
    assert Path(found["report"]).stat().st_size > 10_000


def results_file(reader: str, source: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What another program found, as a submission for DOTA's server."""
    if reader in NO_TRUTH:
        source = "aerial:mixed?scenes=8&size=128"
    assert main(["eval", "oracle", source, "--runs", "others", "--pictures", "0", "--json"]) == 0
    return str(Path(json.loads(capsys.readouterr().out)["run"]) / "Task1.zip")
