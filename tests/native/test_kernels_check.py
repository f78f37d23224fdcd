# SPDX-License-Identifier: Apache-2.0
"""The kernels of the compiled engine against plain loops, without Python: kernels_check.cpp."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kernels_check.sh")
COMPILER = next((c for c in (os.environ.get("CXX"), "c++", "g++", "clang++") if c and shutil.which(c)), None)


def check(**environment: str) -> list[str]:
    found = subprocess.run(
        [str(SCRIPT)], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout.splitlines()


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
def test_levels_of_this_processor() -> None:
    assert COMPILER is not None
    lines = check(CXX=COMPILER, FLAGS="-O1")
    assert lines[0].startswith("generic: ")
    assert all(line.endswith(": right") for line in lines)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-g++"), reason="no cross compiler for aarch64")
@pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="no qemu-user")
def test_levels_of_an_emulated_arm_processor() -> None:
    lines = check(CXX="aarch64-linux-gnu-g++", RUN="qemu-aarch64 -L /usr/aarch64-linux-gnu")
    assert [line.split(":")[0] for line in lines] == ["generic", "neon"]


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64" or not COMPILER, reason="no compiler for x86-64")
@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="no qemu-user")
@pytest.mark.parametrize(("processor", "levels"), [("Nehalem", ["generic"]), ("Haswell", ["generic", "avx2"])])
def test_levels_of_emulated_older_processors(processor: str, levels: list[str]) -> None:
    """No instruction of a higher level has slipped into a lower one: the emulator would stop."""
    assert COMPILER is not None
    lines = check(CXX=COMPILER, RUN=f"qemu-x86_64 -cpu {processor}")
    assert [line.split(":")[0] for line in lines] == levels
