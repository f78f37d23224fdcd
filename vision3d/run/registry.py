# SPDX-License-Identifier: Apache-2.0
"""Plug-ins by entry point: names come from package metadata, modules load when they are used.

Importing this module, and listing names, imports nothing but the standard library.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, distributions
from typing import Any

from vision3d.errors import MissingExtraError, UserError

PIPELINES = "vision3d.pipelines"
READERS = "vision3d.readers"
WRITERS = "vision3d.writers"


@dataclass(frozen=True)
class Provider:
    """One entry point and the package that it comes from."""

    name: str
    package: str
    version: str
    entry: EntryPoint


@dataclass(frozen=True)
class Listing:
    """One line of ``vision3d list``: ``problem`` is empty for a plug-in that loads."""

    name: str
    package: str
    summary: str
    samples: str
    missing: tuple[str, ...]
    problem: str


def providers(group: str) -> dict[str, list[Provider]]:
    """Name -> who provides it, sorted by name. A package found twice on the path counts once, as in imports."""
    found: dict[str, list[Provider]] = {}
    seen: set[str] = set()
    for dist in distributions():
        # Parsing every package's metadata takes a tenth of a second; a look at the raw text takes a hundredth.
        if f"[{group}]" not in (dist.read_text("entry_points.txt") or ""):
            continue
        package = dist.metadata["Name"] if dist.metadata is not None else None
        if not package or _normal(package) in seen:
            continue
        seen.add(_normal(package))
        for entry in dist.entry_points:
            if entry.group == group:
                found.setdefault(entry.name, []).append(Provider(entry.name, package, dist.version, entry))
    return dict(sorted(found.items()))


def names(group: str) -> list[str]:
    """All names of a group, from metadata alone."""
    return list(providers(group))


def load(group: str, name: str) -> Any:
    """The spec behind ``name``.

    Raises:
        UserError: no such name, two packages provide it, or its module cannot be imported.
    """
    known = providers(group)
    kind = _kind(group)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        if not known:
            raise UserError(f"no {kind} is installed: install vision3d itself (pip install -e . in a source checkout)")
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(known)}"
        raise UserError(f"unknown {kind} '{name}'; {hint}")
    if len(known[name]) > 1:
        packages = " and ".join(sorted(p.package for p in known[name]))
        raise UserError(f"{kind} '{name}' is provided by two packages, {packages}: uninstall one of them")
    provider = known[name][0]
    try:
        spec = provider.entry.load()
    except Exception as error:
        raise UserError(f"{kind} '{name}' of package {provider.package} is broken: {_reason(error)}") from error
    wrong = _spec_problem(spec, name)
    if wrong:
        raise UserError(f"{kind} '{name}' of package {provider.package} is broken: {wrong}")
    return spec


def listing(group: str) -> list[Listing]:
    """Every plug-in of the group, broken and doubled ones included."""
    out = []
    for name, offered in providers(group).items():
        packages = " and ".join(sorted(p.package for p in offered))
        try:
            spec = load(group, name)
        except UserError as error:
            out.append(Listing(name, packages, "", "", (), str(error).partition(" is broken: ")[2] or str(error)))
        else:
            missing = tuple(missing_extras(spec.extras))
            out.append(Listing(name, packages, spec.summary, spec.samples, missing, ""))
    return out


def missing_extras(modules: Iterable[str]) -> list[str]:
    """Those of the named modules that are not installed. ``extra:module`` names the extra that brings it."""
    return [item for item in modules if not _installed(item.rpartition(":")[2])]


def require_extras(kind: str, name: str, modules: Iterable[str]) -> None:
    """Raises:
    MissingExtraError: an optional module that the plug-in needs is absent; says what to install.
    """
    missing = missing_extras(modules)
    if missing:
        extra, _, module = missing[0].rpartition(":")
        install = f"pip install 'vision3d[{extra}]'" if extra else f"pip install {module}"
        raise MissingExtraError(f"{kind} '{name}' needs the package {module}: {install}")


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _spec_problem(spec: Any, name: str) -> str:
    wanted = ("name", "summary", "samples", "extras")
    lacking = [field for field in wanted if not hasattr(spec, field)]
    if lacking:
        return f"its entry point loads to a {type(spec).__name__} without '{lacking[0]}', not to a spec"
    if spec.name != name:
        return f"its entry point is called '{name}' but its spec '{spec.name}'"
    return ""


def _reason(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _kind(group: str) -> str:
    return group.rpartition(".")[2].removesuffix("s")


def _normal(package: str) -> str:
    return package.lower().replace("_", "-").replace(".", "-")
