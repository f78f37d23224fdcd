# SPDX-License-Identifier: Apache-2.0
"""The viewer that shows nothing: the default, so that no caller has to ask whether there is one."""

from __future__ import annotations

from typing import Any


class NullViewer:
    """Takes every sample and result and shows none."""

    def on_result(self, sample: Any, result: Any) -> None:
        """Ignore one sample and its result."""

    def close(self) -> None:
        """Nothing was opened."""
