# SPDX-License-Identifier: Apache-2.0
"""Points to pseudo boxes to a detector, as the runner sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_context import Context

from detection.config import METHODS, ChainConfig, DetectorConfig, LabellerConfig, Method, PseudoBoxesConfig
from detection.networks.config import BackboneConfig
from detection.pipelines.chain import ChainPipeline
from detection.pipelines.pseudo import PseudoPipeline
from detection.training.config import TrainConfig
from vision3d.cli import main
from vision3d.contracts import DataConfig
from vision3d.errors import DataError, UserError
from vision3d.readers.aerial import SPEC
from vision3d.types import BoxTruth, LabeledImage

SCENES = "aerial:mixed?scenes=3&size=160&seed=5"
BACKBONE = BackboneConfig(width=8, channels=16)
TRAIN = TrainConfig(steps=3, batch=1, crop=128, warmup=0, checkpoint_every=2)
TINY = ["--labeller.backbone.width", "8", "--labeller.backbone.channels", "16", "--labeller.train.steps", "2"]
TINY += ["--labeller.train.batch", "1", "--labeller.train.crop", "128"]
TINY_DETECTOR = [word.replace("--labeller", "--detector") for word in TINY]


class Blind:
    """Generated scenes whose truth cannot be had, or is nonsense."""

    samples: type = LabeledImage

    def __init__(self, nonsense: bool = False) -> None:
        self.base = SPEC.open(SCENES, DataConfig(split="train"))
        self.name = "blind"
        self.bad: Mapping[int, str] = {}
        self.nonsense = nonsense

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int) -> LabeledImage:
        sample: LabeledImage = self.base[index]
        return sample

    def key(self, index: int) -> str:
        return self.base.key(index)

    def truth(self, index: int) -> BoxTruth:
        assert self.nonsense, "a true box was asked for"
        truth: BoxTruth | None = self.base.truth(index)
        assert truth is not None
        boxes = np.random.default_rng(index).uniform(1, 50, truth.boxes.shape)
        return replace(truth, boxes=boxes, quads=boxes[:, None, :2] + np.zeros((1, 4, 1)))


def labeller(method: Method) -> LabellerConfig:
    return LabellerConfig(method=method, backbone=BACKBONE, train=TRAIN)


@pytest.mark.parametrize("method", METHODS)
def test_no_true_box_reaches_the_training(method: Method, tmp_path: Path) -> None:
    """Card check 9: whatever the stored true boxes are, losses and pseudo boxes stay; here they are not even read."""
    found = []
    for reader in (Blind(), Blind(nonsense=True)):
        config = ChainConfig(labeller=labeller(method), detector=DetectorConfig(BACKBONE, train=TRAIN), min_score=0.0)
        out = tmp_path / f"{method}-{reader.nonsense}"
        out.mkdir()
        ChainPipeline(config).fit(reader, out, Context())
        labels = {file.name: file.read_text() for file in sorted((out / "pseudo_boxes" / "labelTxt").iterdir())}
        weights = [file.read_bytes() for file in sorted(out.glob("*.safetensors"))]
        found.append((labels, weights, json.loads((out / "labeller.json").read_text())))
    assert found[0] == found[1]
    assert len(found[0][0]) == 3
    assert len(found[0][1]) == (1 if method == "watershed" else 2)


@pytest.mark.parametrize("method", METHODS)
def test_a_loaded_labeller_answers_as_the_fitted_one(method: Method, tmp_path: Path) -> None:
    """Card check 8: boxes from a stored model equal those made in the process that trained it."""
    from detection.labelling import fit_labeller
    from detection.pipelines.pseudo import label_sample

    reader = Blind()
    config = PseudoBoxesConfig(labeller=labeller(method))
    pipeline = PseudoPipeline(config)
    pipeline.fit(reader, tmp_path, Context())
    stored = pipeline.step(pipeline.load(tmp_path), reader[0])
    fresh = label_sample(fit_labeller(config.labeller, reader, Context()), reader[0])
    assert stored.boxes is not None
    np.testing.assert_array_equal(stored.boxes, fresh.boxes)
    np.testing.assert_array_equal(stored.scores, fresh.scores)
    assert reader[0].points is not None
    assert len(stored.boxes) == len(reader[0].points)


def test_a_model_of_another_method_or_of_other_classes_is_refused(tmp_path: Path) -> None:
    reader = Blind()
    config = PseudoBoxesConfig(labeller=labeller("class-map"))
    PseudoPipeline(config).fit(reader, tmp_path, Context())
    with pytest.raises(DataError, match="describes a network of 'class-map', not of 'layout'"):
        PseudoPipeline(PseudoBoxesConfig(labeller=labeller("layout"))).load(tmp_path)
    model = PseudoPipeline(config).load(tmp_path)
    sample = replace(reader[0], classes=tuple(f"zebra-{name}" for name in reader[0].classes))
    with pytest.raises(UserError, match=r"class 'zebra-.*' of the data is unknown to the model"):
        PseudoPipeline(config).step(model, sample)
    unused = replace(reader[0], classes=(*reader[0].classes, "zebra"))
    result = PseudoPipeline(config).step(model, unused)  # a class that no point has does no harm
    assert result.status == "ok"
    assert unused.labels is not None
    with pytest.raises(DataError, match="class 'zebra' of the data is unknown to the model"):
        PseudoPipeline(config).step(model, replace(unused, labels=np.full_like(unused.labels, len(unused.classes) - 1)))
    (tmp_path / "labeller.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"labeller\.safetensors"):
        PseudoPipeline(config).load(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code = main([*words, "--json", "--threads", "1"])
    out, err = capsys.readouterr()
    assert code == 0, err
    document: dict[str, Any] = json.loads(out)
    return document


def values(document: dict[str, Any]) -> dict[str, float]:
    return {metric["name"]: metric["value"] for metric in document["metrics"]}


def test_the_labels_themselves_score_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiles = ["--tiles.window", "96", "--tiles.gap", "24"]
    found = values(run(capsys, "eval", "oracle", SCENES, "--pictures", "0", *tiles))
    for name in ("ap50", "ap50_voc07", "ap50_95", "mean_iou"):
        assert found[name] == pytest.approx(1.0, abs=1e-9), name
    code = main(["run", "oracle", SCENES])
    assert code == 2
    assert "use it with `vision3d eval`" in capsys.readouterr().err


def test_the_three_stages_alone_and_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(capsys, "fit", "pseudo-boxes", SCENES, "--split", "train", "--out", "labeller", *TINY)
    made = run(capsys, "run", "pseudo-boxes", SCENES, "--split", "train", "--model", "labeller", "--pictures", "1")
    labels = Path(made["run"])
    assert len(list((labels / "labelTxt").iterdir())) == 3
    together = run(
        capsys, "fit", "pointobb", SCENES, "--split", "train", "--out", "both", *TINY, *TINY_DETECTOR,
        "--labeller-model", "labeller", "--min-score", "0",
    )  # fmt: skip
    assert together["card"]["n_samples"] == 3
    # The chain's boxes are those of the stage alone; it leaves the same file behind.
    for file in sorted((labels / "labelTxt").iterdir()):
        alone, chained = (
            np.loadtxt(p, usecols=range(8), ndmin=2) for p in (file, Path("both/pseudo_boxes/labelTxt") / file.name)
        )
        np.testing.assert_allclose(alone, chained, atol=2e-6)
    found = run(
        capsys, "eval", "pointobb", SCENES, "--split", "test", "--model", "both", "--baselines", "--pictures", "1"
    )
    assert set(found["baselines"]) == {"untrained"}
    assert Path(found["report"]).stat().st_size > 10_000
    folder = Path(found["run"])
    assert (folder / "Task1.zip").exists()
    assert (folder / "per_class.csv").exists()
    again = run(
        capsys,
        "eval",
        "detections",
        SCENES,
        "--split",
        "test",
        "--results",
        str(folder / "Task1.zip"),
        "--pictures",
        "0",
    )
    for name in ("ap50", "ap50_voc07"):
        assert values(again)[name] == pytest.approx(values(found)[name], abs=1e-6)


def test_pseudo_boxes_are_measured_beside_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(capsys, "fit", "pseudo-boxes", SCENES, "--split", "train", "--out", "labeller", *TINY)
    found = run(
        capsys,
        "eval",
        "pseudo-boxes",
        SCENES,
        "--split",
        "test",
        "--model",
        "labeller",
        "--baselines",
        "--pictures",
        "1",
    )
    assert set(found["baselines"]) == {"untrained", "watershed"}
    assert found["n_failed"] == 0


def test_images_without_points_and_without_boxes_are_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    monkeypatch.chdir(tmp_path)
    Path("plain").mkdir()
    cv2.imwrite("plain/a.png", np.zeros((64, 64, 3), np.uint8))
    assert main(["fit", "pseudo-boxes", "plain", "--out", "model"]) == 2
    assert "`vision3d points`" in capsys.readouterr().err
    assert main(["fit", "rotated-fcos", "plain", "--out", "other"]) == 2
    assert "no boxes to train on" in capsys.readouterr().err
    assert not Path("model").exists()


def test_bad_labels_stop_a_run_and_are_counted_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    monkeypatch.chdir(tmp_path)
    for folder in ("data/images", "data/labelTxt"):
        Path(folder).mkdir(parents=True)
    cv2.imwrite("data/images/a.png", np.full((64, 64, 3), 90, np.uint8))
    good = "10 10 40 10 40 25 10 25 ship 0\n"
    crossed, narrow, foreign, short = (
        "10 10 40 25 40 10 10 25 ship 0\n",
        "10 10 40 10 40 10.4 10 10.4 ship 0\n",
        "10 10 40 10 40 25 10 25 zebra 0\n",
        "10 10 40 10 40 25 10 ship 0\n",
    )
    Path("data/labelTxt/a.txt").write_bytes((good + crossed + narrow + foreign + short).replace("\n", "\r\n").encode())
    assert main(["eval", "oracle", "data", "--pictures", "0"]) == 2
    err = capsys.readouterr().err
    assert "a.txt" in err
    assert "line 2" in err
    assert "Traceback" not in err
    found = values(run(capsys, "eval", "oracle", "data", "--pictures", "0", "--skip-bad"))
    assert found["ap50"] == 1.0
    assert main(["eval", "oracle", "data", "--pictures", "0", "--skip-bad"]) == 0
    err = capsys.readouterr().err
    assert "4 bad labels left out" in err, err
    assert "line 2" in err


def test_results_of_tiles_are_merged_and_wrong_files_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    monkeypatch.chdir(tmp_path)
    for folder in ("data/images", "data/labelTxt", "results"):
        Path(folder).mkdir(parents=True)
    cv2.imwrite("data/images/a.png", np.full((128, 200, 3), 90, np.uint8))
    Path("data/labelTxt/a.txt").write_text("110 10 150 10 150 25 110 25 ship 0\n20 60 60 60 60 75 20 75 ship 0\n")
    # The first object lies in both of two tiles that begin at x = 0 and x = 72, the second in one.
    first, again = "110 10 150 10 150 25 110 25", "38 10 78 10 78 25 38 25"
    second = "20 60 60 60 60 75 20 75"
    rows = [("0", "0.9", first), ("72", "0.8", again), ("0", "0.7", second)]
    Path("results/Task1_ship.txt").write_text("".join(f"a__128__{x}___0 {score} {quad}\n" for x, score, quad in rows))
    found = values(run(capsys, "eval", "detections", "data", "--results", "results", "--pictures", "0"))
    assert found["ap50"] == 1.0
    assert found["mean_iou"] == pytest.approx(1.0)
    assert main(["eval", "detections", "data", "--pictures", "0"]) == 2
    assert "needs --results" in capsys.readouterr().err
    Path("results/Task1_ship.txt").write_text("a 0.9 1 2 3\n")
    assert main(["eval", "detections", "data", "--results", "results", "--pictures", "0"]) == 2
    err = capsys.readouterr().err
    assert "Task1_ship.txt" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("method", ["layout", "class-map"])
def test_a_crop_that_does_not_fit_the_pyramid_is_refused(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fit = ["fit", "pseudo-boxes", SCENES, "--out", "model", "--labeller.method", method, "--labeller.train.crop", "100"]
    assert main(fit) == 2
    assert "train.crop is 100: must be a multiple of 32" in capsys.readouterr().err
