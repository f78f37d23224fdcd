# SPDX-License-Identifier: Apache-2.0
"""Plug-ins: names without imports, broken and doubled ones, missing packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from plugin_fixtures import install

from vision3d.errors import MissingExtraError, UserError
from vision3d.run import registry

SPEC = "from vision3d.contracts import ReaderSpec\nSPEC = ReaderSpec({name!r}, 'reads', 'Frame', None, None{extra})\n"


def plug(site: Path, package: str, name: str, code: str) -> None:
    module = package.replace("-", "_") + "_module"
    (site / f"{module}.py").write_text(code)
    install(site, package, {registry.READERS: {name: f"{module}:SPEC"}})


def test_names_are_listed_without_importing(site: Path) -> None:
    plug(site, "pack-a", "alpha", "raise RuntimeError('imported')")
    assert "alpha" in registry.names(registry.READERS)
    assert "pack_a_module" not in sys.modules


def test_a_good_one_loads(site: Path) -> None:
    plug(site, "pack-a", "alpha", SPEC.format(name="alpha", extra=""))
    assert registry.load(registry.READERS, "alpha").summary == "reads"
    line = next(item for item in registry.listing(registry.READERS) if item.name == "alpha")
    assert (line.package, line.summary, line.samples, line.problem) == ("pack-a", "reads", "Frame", "")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('boom\\nsecond line')", "RuntimeError: boom"),
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("", "AttributeError: "),
        ("SPEC = 7", "its entry point loads to a int without 'name', not to a spec"),
        (SPEC.format(name="beta", extra=""), "its entry point is called 'alpha' but its spec 'beta'"),
    ],
)
def test_a_broken_one_is_listed_and_harms_nobody(site: Path, code: str, reason: str) -> None:
    plug(site, "pack-a", "alpha", code)
    plug(site, "pack-b", "good", SPEC.format(name="good", extra=""))
    found = {item.name: item for item in registry.listing(registry.READERS)}
    assert found["alpha"].problem.startswith(reason)
    assert found["good"].problem == ""
    with pytest.raises(UserError, match="reader 'alpha' of package pack-a is broken: "):
        registry.load(registry.READERS, "alpha")


def test_two_providers_of_one_name(site: Path) -> None:
    for package in ("pack-a", "pack-b"):
        plug(site, package, "alpha", SPEC.format(name="alpha", extra=""))
    with pytest.raises(UserError, match="reader 'alpha' is provided by two packages, pack-a and pack-b: uninstall one"):
        registry.load(registry.READERS, "alpha")
    found = {item.name: item for item in registry.listing(registry.READERS)}
    assert "two packages" in found["alpha"].problem


def test_a_package_found_twice_on_the_path_is_one(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug(site, "pack-a", "alpha", SPEC.format(name="alpha", extra=""))
    other = tmp_path / "other"
    install(other, "Pack_A", {registry.READERS: {"alpha": "nowhere:SPEC"}})
    monkeypatch.setattr(sys, "path", [*sys.path, str(other)])
    assert registry.load(registry.READERS, "alpha").name == "alpha"


def test_unknown_names_get_a_hint(site: Path) -> None:
    plug(site, "pack-a", "alpha", SPEC.format(name="alpha", extra=""))
    with pytest.raises(UserError, match=r"unknown reader 'alpah'; did you mean 'alpha'?"):
        registry.load(registry.READERS, "alpah")
    with pytest.raises(UserError, match=r"unknown reader 'zzz'; there are: .*alpha"):
        registry.load(registry.READERS, "zzz")


def test_missing_packages_are_named_with_what_installs_them(site: Path) -> None:
    plug(site, "pack-a", "alpha", SPEC.format(name="alpha", extra=", extras=('json', 'live:no_such_bags')"))
    assert next(i for i in registry.listing(registry.READERS) if i.name == "alpha").missing == ("live:no_such_bags",)
    spec = registry.load(registry.READERS, "alpha")
    with pytest.raises(MissingExtraError, match=r"needs the package no_such_bags: pip install 'vision3d\[live\]'"):
        registry.require_extras("reader", "alpha", spec.extras)
    with pytest.raises(MissingExtraError, match=r"pip install no_such_bags$"):
        registry.require_extras("reader", "alpha", ("no_such_bags",))
