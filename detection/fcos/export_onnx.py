# SPDX-License-Identifier: Apache-2.0
"""The detector as an ONNX file of standard operators: images in, boxes and scores out, suppression left to the caller.

The suppression is left out because no runtime has a rotated one; :func:`detection.fcos.detector.suppressed` does it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detection.fcos.network import MULTIPLE, FcosNet
from vision3d import atomic
from vision3d.errors import ConfigError, MissingExtraError

OPSET = 18
TOLERANCE = 1e-4  # of what the file computes: pixels per pixel of box size, radians, score
INSTALL = "ONNX export needs onnx, onnxruntime and onnxscript; install them: pip install 'vision3d[onnx]'"


class Exported(nn.Module):
    """What the file computes.

    :meth:`forward` takes (B, H, W, 3) uint8 RGB, H and W multiples of 32, and returns boxes (B, N, 5) float32
    (cx, cy, w, h, theta; pixels, radians, clockwise on screen; any of the equivalent forms) and scores (B, N, C).
    """

    def __init__(self, net: FcosNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See above."""
        answers = self.net(images.permute(0, 3, 1, 2).float() / 255)
        return answers.boxes, answers.logits.sigmoid() * answers.quality.sigmoid()[..., None]


def export_onnx(net: FcosNet, path: Path, size: int = 1024) -> dict[str, Any]:
    """Write the file, run it in onnxruntime on images of two sizes and batches, and compare it with the network.

    Args:
        net: trained.
        path: of the file; it appears only when the comparison has passed.
        size: side of the larger of the images compared, a multiple of 32, at least 64.

    Returns:
        Facts: the largest differences of boxes and scores, operators, inputs and outputs.

    Raises:
        ConfigError: ``size`` is not such a multiple.
        MissingExtraError: a package is missing.
        RuntimeError: the file computes something else than the network.
    """
    if size % MULTIPLE or size < 2 * MULTIPLE:
        raise ConfigError(f"the size of exported images is {size}: must be a multiple of {MULTIPLE}, at least 64")
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"{INSTALL} ({error})") from None
    module = Exported(net).eval().cpu()
    model = _converted(module)
    model.producer_name = "vision3d"
    facts = {
        "classes": json.dumps(list(net.classes)),
        "boxes": "cx, cy, w, h, theta: pixels with centres at integers, radians, y down, clockwise on screen",
        "suppression": "outside: greedy, per class, by rotated IoU",
        "multiple": str(MULTIPLE),
    }
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    differences = np.zeros(2)
    for shape in ((1, size, size, 3), (2, size // 2 // MULTIPLE * MULTIPLE, size, 3)):
        images = rng.integers(0, 256, shape, dtype=np.uint8)
        differences = np.maximum(differences, _differences(module, session, images))
    if (differences > TOLERANCE).any():
        raise RuntimeError(
            f"the ONNX file differs from the network: boxes by {differences[0]:.2g}, scores by {differences[1]:.2g}"
        )
    with atomic.whole_file(path) as file:
        file.write(data)
    return {
        "file": path.name,
        "bytes": len(data),
        "opset": OPSET,
        "operators": sorted({node.op_type for node in model.graph.node}),
        "input": "images (B, H, W, 3) uint8 RGB, H and W multiples of 32",
        "outputs": "boxes (B, N, 5) float32, scores (B, N, C) float32",
        "box_difference": float(differences[0]),
        "score_difference": float(differences[1]),
        "onnxruntime": onnxruntime.__version__,
    }


def _converted(module: nn.Module) -> Any:
    """The module as an ONNX model with free batch, height and width."""
    dims = {
        0: torch.export.Dim("batch", min=1, max=1024),
        1: MULTIPLE * torch.export.Dim("rows", min=1, max=1024),
        2: MULTIPLE * torch.export.Dim("columns", min=1, max=1024),
    }
    # A batch and sides of their own: a size that occurs twice, or is 1, would be taken for a constant.
    example = torch.zeros(2, 3 * MULTIPLE, 4 * MULTIPLE, 3, dtype=torch.uint8)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (example,),
            input_names=["images"],
            output_names=["boxes", "scores"],
            dynamic_shapes=(dims,),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch's ONNX converter returned nothing")
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's converter says about itself: its own deprecations, packages that it would also know."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _differences(module: Exported, session: Any, images: np.ndarray) -> np.ndarray:
    """The largest differences of boxes (relative to a box's long side, angles as far as they are sure) and scores."""
    with torch.inference_mode():
        answers = module.net(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
        boxes, scores = (value.double().numpy() for value in module(torch.from_numpy(images)))
        codes = answers.codes.double().numpy()
    found_boxes, found_scores = session.run(["boxes", "scores"], {"images": images})
    if found_boxes.shape != boxes.shape or found_scores.shape != scores.shape:
        return np.full(2, np.inf)
    apart = np.abs(found_boxes - boxes)
    apart[..., :4] /= np.maximum(boxes[..., 2:4].max(-1, keepdims=True), 1)
    apart[..., 4] = _angles_apart(found_boxes[..., 4], boxes[..., 4], codes)
    return np.array([apart.max(), np.abs(found_scores - scores).max()])


def _angles_apart(found: np.ndarray, angles: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Differences of axes in radians, as differences of the codes (..., 6) that they come from.

    A rounding error in a code moves its angle by as much more as the code is shorter than 1, and turns it by 90
    degrees where the coarse and the fine part are 45 degrees apart; a network that has learnt little has such codes
    everywhere, and both answers are then right.
    """
    steps = 2 * np.pi * np.arange(3) / 3
    parts = [codes[..., k : k + 3] @ np.stack([np.cos(steps), -np.sin(steps)], -1) / 1.5 for k in (0, 3)]
    coarse_length, fine_length = (np.minimum(np.linalg.norm(part, axis=-1), 1) for part in parts)
    coarse, fine = (np.arctan2(part[..., 1], part[..., 0]) / f for part, f in zip(parts, (2, 4)))
    turns = (coarse - fine) / (np.pi / 2)
    to_tie = np.abs(np.abs(turns - np.round(turns)) - 0.5) * np.pi / 2
    quarters = np.round((found - angles) / (np.pi / 2))
    turned = quarters % 2 != 0  # half turns are the same axis
    apart = np.abs(found - angles - quarters * np.pi / 2) * fine_length
    return np.asarray(np.maximum(apart, np.where(turned, to_tie * np.minimum(coarse_length, fine_length), 0)))
