# SPDX-License-Identifier: Apache-2.0
"""The errors that a user can mend. The command line prints them as one line and exits with 2."""

from __future__ import annotations

from pathlib import Path


class UserError(Exception):
    """Something the user gave is wrong; the message is one line and says how to mend it."""


class ConfigError(UserError):
    """A configuration value is unknown, of the wrong type or out of range."""


class DataError(UserError):
    """A data file is missing, damaged or contradicts another; always names the file.

    Args:
        path: the file (or folder) at fault.
        problem: what is wrong with it, and where it helps, the remedy.
    """

    def __init__(self, path: str | Path, problem: str) -> None:
        self.path = str(path)
        self.problem = problem
        super().__init__(f"{path}: {problem}")

    def __reduce__(self) -> tuple[type[DataError], tuple[str, str]]:
        return DataError, (self.path, self.problem)


class MissingExtraError(UserError):
    """An optional package is not installed; the message holds the line that installs it."""


def check_ranges(section: str, config: object, **ranges: tuple[float, float]) -> None:
    """Refuse a configuration with a field outside of its (smallest, largest) value; both are allowed.

    Raises:
        ConfigError: names the field as ``section.field``, its value and its limits.
    """
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise ConfigError(f"{section}.{name} is {value}: must lie between {low:g} and {high:g}")
