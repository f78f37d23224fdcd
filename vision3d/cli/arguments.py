# SPDX-License-Identifier: Apache-2.0
"""Arguments of the verbs that have no pipeline options."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from vision3d.errors import UserError


class Parser(argparse.ArgumentParser):
    """argparse whose mistakes are one line: it raises instead of printing its usage and leaving."""

    def __init__(self, verb: str, **options: Any) -> None:
        super().__init__(prog=f"vision3d {verb}", allow_abbrev=False, **options)
        self.add_argument("--json", action="store_true", help="print one JSON document to standard output")

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")
