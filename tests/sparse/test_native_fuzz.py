# SPDX-License-Identifier: Apache-2.0
"""A short run of the fuzzer (fuzz_native.py): no crash, no error that is not meant for the caller; and it repeats."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vision3d.sparse._native")

PROGRAM = Path(__file__).with_name("fuzz_native.py")


def test_two_thousand_calls() -> None:
    command = [sys.executable, str(PROGRAM), "--cases", "2000", "--seed", "5"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    total = json.loads(found.stdout.splitlines()[1])["total"]
    assert sum(total.values()) == 2000
    # Both sides are met: calls that work, and each kind of refusal.
    assert total["returned"] > 500
    assert total["ValueError"] > 300
    assert total["TypeError"] > 100
    assert total["IndexError"] > 10


def test_a_seed_repeats_its_calls() -> None:
    program = (
        "import json, sys, warnings; warnings.simplefilter('ignore'); "
        "sys.path.insert(0, sys.argv[1]); import fuzz_native; "
        "print(json.dumps([fuzz_native.run(8, 200), fuzz_native.run(8, 200), fuzz_native.run(9, 200)]))"
    )
    command = [sys.executable, "-c", program, str(PROGRAM.parent)]
    first, again, other = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert first == again
    assert first != other
