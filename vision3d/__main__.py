# SPDX-License-Identifier: Apache-2.0
"""``python -m vision3d``."""

from __future__ import annotations

import sys

from vision3d.cli import main

if __name__ == "__main__":
    sys.exit(main())
