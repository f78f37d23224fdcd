# SPDX-License-Identifier: Apache-2.0
"""Points to detector, killed in each of its stages, and shared by two processes."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCENES = "aerial:mixed?scenes=3&size=160&seed=5"
PART = ["backbone.width", "8", "backbone.channels", "16", "train.steps", "6", "train.batch", "1", "train.crop", "128"]
PART += ["train.checkpoint-every", "2"]
OPTIONS = [
    f"--{stage}.{word}" if k % 2 == 0 else word for stage in ("labeller", "detector") for k, word in enumerate(PART)
]
FIT = [sys.executable, "-m", "vision3d", "fit", "pointobb", SCENES, "--split", "train", "--out", "model"]
FIT += ["--threads", "1", "--labeller.method", "class-map", "--min-score", "0", *OPTIONS]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def fit(folder: Path) -> None:
    done = subprocess.run(FIT, cwd=folder, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def digests(model: Path) -> dict[str, str]:
    """File -> hash, without what differs from run to run."""
    files = (
        path for path in sorted(model.rglob("*")) if path.is_file() and path.name not in ("timing.json", "log.txt")
    )
    return {path.relative_to(model).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole")
    fit(folder)
    return digests(folder / "model")


@pytest.mark.parametrize("stage", ["labeller step 0000002", "pseudo boxes 000001", "detector step 0000004"])
def test_a_killed_fit_ends_with_the_same_bytes(stage: str, whole: dict[str, str], tmp_path: Path) -> None:
    process = subprocess.Popen(
        FIT, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 200
        wanted = stage.replace(" ", "*")
        while process.poll() is None and time.monotonic() < deadline:
            if any(tmp_path.glob(f".model.fit/cache/*{wanted}*")):
                break
            time.sleep(0.005)
        assert process.poll() is None, "it was over before it could be killed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "model").exists()
    fit(tmp_path)
    assert digests(tmp_path / "model") == whole


def test_two_processes_share_a_fit(tmp_path: Path) -> None:
    """The first process publishes the model; both leave without an error."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(FIT, cwd=tmp_path, env=environment(RANK=str(rank), **common), stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in processes:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err.decode()
    found = digests(tmp_path / "model")
    assert {"labeller.safetensors", "detector.safetensors", "card.json"} <= set(found)
    assert '"processes": 2' in (tmp_path / "model" / "detector.json").read_text()
