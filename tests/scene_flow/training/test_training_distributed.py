# SPDX-License-Identifier: Apache-2.0
"""Two processes train as one does, and go on where two stopped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_training import QUICK, Drawn, Folder, fresh, same, weights

from scene_flow.training.loop import train_network

HERE = Path(__file__).parent
Arrays = dict[str, np.ndarray]


def environment(**more: str) -> dict[str, str]:
    paths = [str(HERE.parents[2]), str(HERE), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **more}


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def read(out: Path) -> list[Arrays]:
    """What two processes have in the end."""
    found = []
    for rank in range(2):
        with np.load(f"{out}.{rank}.npz") as file:
            found.append(dict(file))
    return found


def under_torchrun(program: list[str]) -> None:
    port = f"--master-port={free_port()}"
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1", port]
    command = [sys.executable, *launch, *program]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def by_hand(program: list[str]) -> None:
    """What torchrun does, without its own start-up."""
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    processes = [
        subprocess.Popen([sys.executable, *program], env=environment(RANK=str(r), **common), stderr=subprocess.PIPE)
        for r in range(2)
    ]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err.decode()


def without_facts(arrays: Arrays) -> Arrays:
    return {name: array for name, array in arrays.items() if "/" not in name}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training in two processes of one pair a step each; every checkpoint is still there."""
    folder = tmp_path_factory.mktemp("pair")
    under_torchrun([str(HERE / "tiny_training.py"), str(folder / "cache"), str(folder / "out"), "1"])
    return folder


def test_two_processes_are_one_with_twice_the_batch(pair: Path, tmp_path: Path) -> None:
    """Same order of pairs, same points, averaged gradients: equal but for rounding; and equal to the bit in both."""
    main, other = read(pair / "out")
    assert same(without_facts(main), without_facts(other))  # statistics in buffers are those of process 0
    assert int(main["watch.num_batches_tracked"]) == 12
    net = fresh()
    facts = train_network(net, Drawn(), replace(QUICK, batch=2), Folder(tmp_path))
    one, first = weights(net), weights(fresh())
    for name, array in one.items():
        np.testing.assert_allclose(main[name], array, rtol=1e-4, atol=1e-6)
    assert max(np.abs(one[name] - first[name]).max() for name in first) > 0.01  # something was learnt at all
    np.testing.assert_allclose(main["facts/losses"], facts["losses"], rtol=1e-4)


def test_two_processes_go_on_where_two_stopped(pair: Path, tmp_path: Path) -> None:
    """Step and state of process 0 reach the other process, which has no checkpoint."""
    (tmp_path / "cache").mkdir()
    kept = "training-step-000006.npz"
    (tmp_path / "cache" / kept).write_bytes((pair / "cache" / kept).read_bytes())
    by_hand([str(HERE / "tiny_training.py"), str(tmp_path / "cache"), str(tmp_path / "out"), "1"])
    for whole, resumed in zip(read(pair / "out"), read(tmp_path / "out"), strict=True):
        assert same(without_facts(whole), without_facts(resumed))
    assert len(list((tmp_path / "cache").iterdir())) == 3  # steps 6, 9 and 12: process 0 went on, and wrote alone
