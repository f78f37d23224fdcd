# SPDX-License-Identifier: Apache-2.0
"""A reader of cloud pairs from a list of records: what every reader of scene flow builds on."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vision3d.contracts import DataConfig, Reader
from vision3d.errors import ConfigError, DataError
from vision3d.readers._source import find_roots, split_source
from vision3d.types.clouds import CloudPair, FlowTruth

Float32 = NDArray[np.float32]
Truth = Callable[[], FlowTruth | None]

CHECKED_PAIRS = 50


@dataclass(frozen=True)
class PairRecord:
    """One pair of a data set before anything is read.

    Attributes:
        name: unique in the data set.
        files: what it is read from; the first is named when something is wrong.
        place: what else the reader needs to find it (a position in a log, say).
        problem: why the pair cannot be used, known before reading it.
    """

    name: str
    files: tuple[Path, ...]
    place: Any = None
    problem: DataError | None = None


class PairReader:
    """Pairs of one data set, read one at a time. Implements :class:`vision3d.contracts.Reader`.

    A format fills in :meth:`_read`. The pair that was read last is kept, because its truth is usually asked for next;
    nothing else is.

    Args:
        name: of the data set, for titles and run folders.
        records: all pairs of the wanted split, in order.
        config: its ``select`` and ``skip_bad`` are applied here; ``size`` is of images and means nothing.
        notes: facts that the user must see.

    Raises:
        ConfigError: ``truth`` is given, which is of images, or ``select`` leaves nothing.
        DataError: no pair, duplicate names, or without ``skip_bad`` the first unusable record.
    """

    samples: type = CloudPair

    def __init__(self, name: str, records: Sequence[PairRecord], config: DataConfig, notes: Iterable[str] = ()) -> None:
        if config.truth is not None:
            raise ConfigError("a file of true poses is for images: clouds take poses after the path, ?poses=FILE")
        self.name = name
        self.notes = tuple(notes)
        self.config = config
        seen: set[str] = set()
        for record in records:
            if record.name in seen:
                raise DataError(record.files[0], f"the name {record.name} occurs twice in {name}")
            seen.add(record.name)
        self.records = _select(records, config.select, name)
        bad: dict[int, str] = {}
        for index, record in enumerate(self.records):
            if record.problem is not None:
                if not config.skip_bad:
                    raise record.problem
                bad[index] = str(record.problem)
        self.bad: Mapping[int, str] = bad
        self._last: tuple[int, CloudPair, Truth] | None = None

    def __len__(self) -> int:
        return len(self.records)

    def key(self, index: int) -> str:
        return self.records[index].name

    def __getitem__(self, index: int) -> CloudPair:
        return self._kept(index)[0]

    def truth(self, index: int) -> FlowTruth | None:
        return self._kept(index)[1]()

    def _kept(self, index: int) -> tuple[CloudPair, Truth]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        index %= len(self)
        if self._last is None or self._last[0] != index:
            record = self.records[index]
            if record.problem is not None:
                raise record.problem
            self._last = (index, *self._read(record))
        return self._last[1:]

    def _read(self, record: PairRecord) -> tuple[CloudPair, Truth]:
        """The pair, and how its truth is found when somebody asks for it."""
        raise NotImplementedError


def _select(records: Sequence[PairRecord], spec: str, name: str) -> Sequence[PairRecord]:
    if not records:
        raise DataError(name, "holds no pairs")
    try:
        parts = [int(part) if part.strip() else None for part in spec.split(":")]
        if not 2 <= len(parts) <= 3:
            raise ValueError
        chosen = tuple(records[slice(*parts)])
    except ValueError:
        raise ConfigError(f"select '{spec}' is not START:STOP:STEP, e.g. '::2' or '1::2' or ':100'") from None
    if not chosen:
        raise ConfigError(f"select '{spec}' leaves none of the {len(records)} pairs of {name}")
    return chosen


def check_pairs(open_reader: Callable[[str, DataConfig], Reader], source: str) -> list[str]:
    """Problems of a data set, one line each: what cannot be opened, unusable records, damaged files.

    Of more than ``CHECKED_PAIRS`` pairs that many are read, spread evenly: large sets hold a million files.
    """
    try:
        reader = open_reader(source, DataConfig(skip_bad=True))
    except (DataError, ConfigError) as error:
        return [str(error)]
    problems = [reader.bad[index] for index in sorted(reader.bad)]
    for index in np.unique(np.linspace(0, len(reader) - 1, CHECKED_PAIRS).astype(int)).tolist():
        if index not in reader.bad:
            try:
                reader[index]
                reader.truth(index)
            except DataError as error:
                problems.append(str(error))
    return problems


def score_any(source: str, accepts: Callable[[Path], bool], value: float, levels: int = 2) -> float:
    """``value`` when one or more folders at or below ``source`` are accepted, a little less per level down, else 0.

    For data that comes as many folders of one kind (logs, scenes). Never raises.
    """
    found = find_roots(source, accepts, levels)
    return max(value - 0.01 * (len(found[0].parts) - len(Path(split_source(source)[0]).parts)), 0.0) if found else 0.0


def as_cloud(points: ArrayLike, path: Path, what: str = "points") -> Float32:
    """``points`` as (N, 3) float32.

    Raises:
        DataError: another shape, no rows, or numbers that are not finite.
    """
    cloud = np.asarray(points)
    if cloud.ndim != 2 or cloud.shape[1] != 3:
        raise DataError(path, f"{what} must be of shape (N, 3), found {cloud.shape}")
    if cloud.dtype.kind not in "fiu":
        raise DataError(path, f"{what} must be numbers, found {cloud.dtype}")
    if not len(cloud):
        raise DataError(path, f"holds no {what}")
    cloud = np.ascontiguousarray(cloud, dtype=np.float32)
    wrong = int((~finite_rows(cloud)).sum())
    if wrong:
        raise DataError(path, f"{wrong} of {len(cloud)} {what} hold NaN or infinite numbers")
    return cloud


def finite_rows(points: NDArray[Any]) -> NDArray[np.bool_]:
    """(N,) rows without NaN or infinity."""
    rows: NDArray[np.bool_] = np.isfinite(points).all(axis=1)
    return rows


def drawn(count: int, wanted: int, *seed: int | str) -> NDArray[np.intp] | slice:
    """``wanted`` of ``count`` rows at random without repetition, in random order; all of them when there are no more.

    The draw depends on the seed alone, so that one name gives the same rows whatever else is read.
    """
    if not wanted or count <= wanted:
        return slice(None)
    numbers = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in seed]
    return np.random.default_rng(numbers).permutation(count)[:wanted]


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file, or the one of an ``.npy`` file under the name ``""``. Nothing is unpickled.

    Raises:
        DataError: the file is missing, damaged, or holds Python objects.
    """
    try:
        # Opened here, because NumPy leaves damaged files open.
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {"": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except Exception as error:  # zip, zlib, header and pickle errors have no common class
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "allow_pickle" in reason:
            reason = "it holds Python objects, which are never loaded"
        raise DataError(path, f"is not a NumPy file that can be read: {reason}") from None


def array_names(path: Path) -> list[str]:
    """Names of the arrays in an ``.npz`` file, without reading them; none when it is not one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile, ValueError):
        return []
