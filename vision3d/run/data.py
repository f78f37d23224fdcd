# SPDX-License-Identifier: Apache-2.0
"""From what a user typed as data to the samples that a pipeline sees: guess, open, select, leave out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vision3d.contracts import DataConfig, Reader, ReaderSpec
from vision3d.errors import ConfigError, DataError, UserError
from vision3d.run import registry
from vision3d.run.console import Console
from vision3d.run.files import digest
from vision3d.run.lazy import Lazy

JOIN = "::"  # between the paths that make up one source


class Subset:
    """Some positions of a reader, in the given order. Implements :class:`vision3d.contracts.Reader`.

    Anything else that the reader offers (a camera model, tracks, ...) is passed through unless it is indexed
    by position: ``camera(i)`` is mapped as ``key(i)`` is.
    """

    def __init__(self, base: Reader, positions: Sequence[int]) -> None:
        self.base = base
        self.positions = tuple(positions)
        self.name = base.name
        self.samples = base.samples
        self.bad: Mapping[int, str] = {i: base.bad[p] for i, p in enumerate(self.positions) if p in base.bad}

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.base[self.positions[index]]

    def key(self, index: int) -> str:
        return self.base.key(self.positions[index])

    def truth(self, index: int) -> Any | None:
        return self.base.truth(self.positions[index])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("base", "records"):
            raise AttributeError(name)
        value = getattr(self.base, name)
        return (lambda index: value(self.positions[index])) if name == "camera" else value


@dataclass(frozen=True)
class OpenData:
    """A reader ready for a run.

    Attributes:
        reader: after split and select; unusable samples are still in it, listed in ``reader.bad``.
        spec: of the reader.
        source: as typed.
    """

    reader: Reader
    spec: ReaderSpec
    source: str


def open_data(
    source: str, config: DataConfig, console: Console, wanted: str = "", taker: str = "the pipeline"
) -> OpenData:
    """Find the reader, open the data and select.

    Args:
        source: path or URI; several paths that make up one sample are joined by ``::``.
        wanted: name of the sample type that the taker takes; empty accepts any.
        taker: who takes the samples, for messages.

    Raises:
        UserError: no or several readers fit, the samples are of another type, nothing is selected.
        DataError: the data cannot be opened, or a selected sample is known to be bad without ``skip_bad``.
    """
    spec, path = find_reader(source, config.reader, console, wanted)
    if wanted and spec.samples != wanted:
        raise UserError(f"reader '{spec.name}' gives samples of type {spec.samples}, {taker} takes {wanted}")
    registry.require_extras("reader", spec.name, spec.extras)
    # The reader always reports bad samples instead of raising, so that one outside the selection does no harm;
    # selection is the runner's, so that it means the same for every reader.
    if config.skip_bad and spec.lenient is not None:
        path = spec.lenient(path)
    reader = spec.open(path, replace(config, select="::", skip_bad=True))
    for note in getattr(reader, "notes", ()):
        console.note(f"{spec.name}: {note}")
    selected = Subset(reader, select_positions(len(reader), config.select, reader.name))
    if selected.bad and not config.skip_bad:
        first, *others = selected.bad.values()
        more = f" (and {len(others)} more)" if others else ""
        raise UserError(f"{first}{more}; --skip-bad leaves out and counts what is bad")
    return OpenData(selected, spec, source)


def find_reader(source: str, name: str, console: Console, wanted: str = "") -> tuple[ReaderSpec, str]:
    """The reader for ``source`` and the path that it is to open.

    Raises:
        UserError: nothing matches, or two match equally well.
    """
    if name:
        return registry.load(registry.READERS, name), source
    scheme = re.match(r"([A-Za-z0-9][A-Za-z0-9_+-]*):(.*)", source)
    if scheme and not Path(source).exists() and scheme[1] in registry.names(registry.READERS):
        # `7scenes:/data/x` names the reader of a path; `synthetic:room` is a URI of the reader's own.
        path = source if _missing(scheme[2]) else scheme[2]
        return registry.load(registry.READERS, scheme[1]), path
    scores: list[tuple[float, ReaderSpec]] = []
    others: list[ReaderSpec] = []
    for candidate in registry.names(registry.READERS):
        try:
            spec = registry.load(registry.READERS, candidate)
            score = float(spec.match(source))
        except Exception as error:
            if isinstance(error, OSError) and JOIN in source:
                continue  # several paths in one are soon too long for a file's name
            console.warn(f"reader '{candidate}' could not be asked: {error}")
            continue
        if score > 0 and (not wanted or spec.samples == wanted):
            scores.append((score, spec))
        elif score > 0:
            others.append(spec)
    if not scores:
        raise _unrecognised(source, wanted, others)
    best = max(score for score, _ in scores)
    first = [spec for score, spec in scores if score == best]
    if len(first) > 1:
        names = " and ".join(spec.name for spec in first)
        raise DataError(source, f"could be {names} (score {best:.2f} each); choose with --reader")
    console.note(f"reader: {first[0].name} (guessed, score {best:.2f})")
    return first[0], source


def _unrecognised(source: str, wanted: str, others: Sequence[ReaderSpec]) -> DataError:
    """Why no reader takes the source, and what to do about it."""
    missing = _missing(source)
    if missing:
        return DataError(missing[0], "no such file or folder, and no reader knows it as a URI")
    words = source.split(JOIN)
    this = "these together" if len(words) > 1 else "this"
    kind = f" as samples of type {wanted}" if wanted and others else ""
    found = "; ".join(f"'{spec.name}' reads {spec.samples} from it" for spec in others)
    known = ", ".join(registry.names(registry.READERS)) or "none installed"
    return DataError(
        " and ".join(words),
        f"no reader recognises {this}{kind}{f' ({found})' if found else ''}; name one with --reader ({known})",
    )


def _missing(source: str) -> list[str]:
    """Those of the paths in a source that do not exist."""

    def exists(word: str) -> bool:
        try:
            return Path(word).exists() or Path(word.partition("?")[0]).exists()
        except (OSError, ValueError):  # too long a name, or a null character
            return False

    return [word for word in source.split(JOIN) if not exists(word)]


def select_positions(count: int, text: str, name: str) -> list[int]:
    """``START:STOP:STEP`` as in Python, over ``count`` samples of the data set ``name``.

    Raises:
        ConfigError: the text is no slice, or it selects nothing.
    """
    try:
        parts = [int(part) if part.strip() else None for part in text.split(":")]
        if not 2 <= len(parts) <= 3:
            raise ValueError
        positions = list(range(count))[slice(*parts)]
    except ValueError:
        raise ConfigError(f"--select '{text}' is not START:STOP:STEP, e.g. '::2' or '1::2' or ':100'") from None
    if not positions:
        raise ConfigError(f"--select '{text}' leaves none of the {count} samples of {name}")
    return positions


def readable(reader: Reader, console: Console) -> dict[int, str]:
    """Position -> why it cannot be used, of all that cannot; every sample is read once to find out."""
    bad = dict(reader.bad)
    for index in console.track(range(len(reader)), len(reader), "checking samples"):
        if index not in bad:
            try:
                reader[index]
            except DataError as error:
                bad[index] = str(error)
    return dict(sorted(bad.items()))


def data_identity(reader: Reader, with_truth: bool = True) -> dict[str, Any]:
    """What a run's results depend on in its data, but for the pixels: names in order and their truths.

    Truths are looked at one by one. Where each takes long to compute, a reader may have ``truth_identity``, a text
    from which, with the names, all of them follow (the recipe of generated scenes, say): then none is looked at. What
    samples carry besides pixels (clicked points, say) is told by a reader's ``points_identity``.

    Args:
        with_truth: off for a run that measures nothing: a truth may cost hours (structure from motion).
    """
    names = [reader.key(i) for i in range(len(reader))]
    identity = {"dataset": reader.name, "samples": f"{len(names)} ({digest(names)[:16]})"}
    points = getattr(reader, "points_identity", "")
    if points:
        identity["points"] = points
    if not with_truth:
        return identity
    recipe = getattr(reader, "truth_identity", "")
    if recipe:
        known = len(reader) - len(reader.bad)
        return {**identity, "truth": f"{known} ({digest([recipe, names])[:16]})", "bad": len(reader.bad)}
    unknown = set(reader.bad)

    def truth(index: int) -> Any | None:
        found = None if index in reader.bad else reader.truth(index)
        if found is None:
            unknown.add(index)
        return found

    fingerprint = digest(Lazy(len(reader), truth))[:16]
    return {**identity, "truth": f"{len(reader) - len(unknown)} ({fingerprint})", "bad": len(reader.bad)}
