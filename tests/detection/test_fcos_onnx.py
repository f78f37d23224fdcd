# SPDX-License-Identifier: Apache-2.0
"""The ONNX file: standard operators, any size and batch, what the network computes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from detection.fcos.config import FcosConfig
from detection.fcos.detector import FcosDetector, suppressed
from detection.fcos.export_onnx import _angles_apart, export_onnx
from detection.fcos.network import FcosNet
from detection.networks.config import BackboneConfig
from vision3d.errors import ConfigError, MissingExtraError

CLASSES = ("plane", "ship", "harbor")


def network() -> FcosNet:
    torch.manual_seed(0)
    return FcosNet(FcosConfig(convs=0), BackboneConfig(width=8, channels=8, norm="batch"), CLASSES).eval()


def test_the_file_computes_what_the_detector_does(tmp_path: Path) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net, path = network(), tmp_path / "detector.onnx"
    facts = export_onnx(net, path, 96)
    assert facts["box_difference"] <= 1e-4 and facts["score_difference"] <= 1e-4
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert {entry.key: entry.value for entry in model.metadata_props}["classes"] == '["plane", "ship", "harbor"]'

    # Sizes and batches that the conversion has not seen, and the suppression outside, give what the detector says.
    config = FcosConfig(convs=0, score=0.0, candidates=40)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 160, 3), dtype=np.uint8)
    boxes, scores = session.run(None, {"images": images})
    for found, box, score in zip(FcosDetector(net, config, CLASSES).detect(list(images)), boxes, scores):
        inside = (box[:, :2] >= -0.5).all(1) & (box[:, :2] < [159.5, 63.5]).all(1)
        flat = np.where(inside[:, None], score, -1).ravel()
        best = np.argsort(-flat, kind="stable")[:40]
        mine = suppressed(box[best // 3].astype(float), flat[best].astype(float), best % 3, config)
        np.testing.assert_allclose(mine.scores, found.scores, atol=1e-5)
        np.testing.assert_allclose(mine.boxes[:, :4], found.boxes[:, :4], atol=1e-2)


def test_without_the_packages_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vision3d\[onnx\]'"):
        export_onnx(network(), tmp_path / "detector.onnx")
    assert not list(tmp_path.iterdir())


def test_sizes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be a multiple of 32"):
        export_onnx(network(), tmp_path / "detector.onnx", 100)


def test_angles_are_compared_as_far_as_their_codes_are_sure() -> None:
    rng = np.random.default_rng(0)
    angles = rng.uniform(-1.5, 1.5, 500)
    steps = 2 * np.pi * np.arange(3) / 3
    code = np.concatenate([np.cos(f * angles[:, None] + steps) for f in (2, 4)], 1)
    assert _angles_apart(angles + np.pi, angles, code).max() < 1e-9  # the same axis
    np.testing.assert_allclose(_angles_apart(angles + 1e-3, angles, code), 1e-3, rtol=1e-3)
    assert _angles_apart(angles + np.pi / 2, angles, code).min() > 0.1
    # A code of no length knows no angle: any answer is right.
    assert _angles_apart(angles + 0.3, angles, 1e-6 * code).max() < 1e-5


def test_a_network_that_has_learnt_nothing_is_exported(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = FcosNet(FcosConfig(), BackboneConfig(width=8, channels=16), ("a", "b"))
    facts = export_onnx(net, tmp_path / "net.onnx", 64)
    assert facts["box_difference"] < 1e-4
