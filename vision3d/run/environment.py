# SPDX-License-Identifier: Apache-2.0
"""The machine and the library versions that a run used, and the seeds and threads that it sets."""

from __future__ import annotations

import hashlib
import os
import platform
import random
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

LIBRARIES = (
    "vision3d",
    "torch",
    "numpy",
    "scipy",
    "opencv-python-headless",
    "opencv-python",
    "kornia",
    "pycolmap",
    "scikit-image",
    "small_gicp",
    "trimesh",
    "pypcd4",
    "pyarrow",
    "h5py",
    "safetensors",
    "PyYAML",
    "tyro",
    "rich",
)


def versions() -> dict[str, str]:
    """Installed versions of the libraries that results may depend on, from metadata alone."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if "vision3d" not in found:
        import vision3d

        found["vision3d"] = vision3d.__version__
    return found


def environment(threads: int) -> dict[str, Any]:
    """The content of ``environment.json``."""
    return {
        "schema": 1,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "threads": threads,
        "versions": versions(),
    }


def set_threads(threads: int) -> None:
    """Limit the numeric libraries to ``threads``; 0 leaves them alone."""
    if threads < 1:
        return
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)  # for libraries that are loaded later
    import torch

    torch.set_num_threads(threads)
    try:
        import cv2
    except ImportError:
        return
    cv2.setNumThreads(threads)


def set_seed(seed: int, key: str = "") -> None:
    """Seed every global generator from ``seed`` and ``key``, so that a sample's result depends on no other sample.

    Libraries that are not loaded are left alone: loading them is not worth a seed.
    """
    mixed = int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:4], "little")
    random.seed(mixed)
    np.random.seed(mixed)  # noqa: NPY002 - third-party code still draws from the global generator
    if torch := sys.modules.get("torch"):
        torch.manual_seed(mixed)
    if cv2 := sys.modules.get("cv2"):
        cv2.setRNGSeed(mixed & 0x7FFFFFFF)
    if pycolmap := sys.modules.get("pycolmap"):
        pycolmap.set_random_seed(mixed & 0x7FFFFFFF)
