# SPDX-License-Identifier: Apache-2.0
"""``fit``: a model folder that is whole or absent, built in a work folder that survives a kill."""

from __future__ import annotations

import platform
import shutil
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from vision3d.contracts import Pipeline, Reader
from vision3d.errors import ConfigError, UserError
from vision3d.run.config import FullConfig, differences, dump_yaml
from vision3d.run.console import Console
from vision3d.run.data import Subset, data_identity, readable
from vision3d.run.environment import set_seed, set_threads, versions
from vision3d.run.files import digest, folder_digest, read_json, whole_file, write_json, write_text
from vision3d.run.folder import shortened, slug
from vision3d.run.modelfolder import SCHEMA, VOLATILE, publish, require_replaceable

T = TypeVar("T")
Arrays = dict[str, NDArray[Any]]


class WorkContext:
    """:class:`vision3d.contracts.FitContext` on a cache folder. Every stage starts from its own seed, so a stage
    that is read from the cache changes nothing for those after it."""

    def __init__(self, cache: Path, seed: int, console: Console) -> None:
        self.seed = seed
        self.console = console
        self.stages_s: dict[str, float] = {}
        self._cache = cache
        self._used: set[str] = set()
        cache.mkdir(parents=True, exist_ok=True)

    def cached(self, key: str, make: Callable[[], Arrays]) -> Arrays:
        """``make()``'s arrays, from disk if an earlier run got that far.

        Raises:
            ValueError: the key was used before in this fit, or an array holds Python objects.
        """
        if key in self._used:
            raise ValueError(f"cache key '{key}' is used twice in one fit")
        self._used.add(key)
        path = self._cache / f"{slug(key)[:80]}-{digest(key)[:8]}.npz"
        arrays = _read_arrays(path)
        if arrays is None:
            start_s = time.perf_counter()
            set_seed(self.seed, key)
            arrays = {name: np.asarray(array, order="C") for name, array in make().items()}
            with whole_file(path) as file:
                _write_arrays(file, arrays)
            self.stages_s[key] = round(time.perf_counter() - start_s, 3)
        else:
            self.console.note(f"{key}: from an earlier run")
        set_seed(self.seed, f"after {key}")
        return arrays

    def progress(self, items: Iterable[T], total: int, label: str) -> Iterator[T]:
        """The items, with a progress bar."""
        return self.console.track(items, total, label)

    def log(self, message: str) -> None:
        """One line to the user and to the log file."""
        self.console.note(message)


@dataclass(frozen=True)
class Fit:
    """One ``fit``, or with ``extend`` an addition to an existing model.

    Attributes:
        reader: training samples, unusable ones included when ``skip_bad`` is set.
        out: the model's folder to be.
        extend: folder of the model that is to be extended.
        reader_name: name of the reader's plug-in.
    """

    pipeline: Pipeline
    config: FullConfig
    reader: Reader
    out: Path
    console: Console
    overwrite: bool = False
    extend: Path | None = None
    reader_name: str = ""

    def execute(self) -> dict[str, Any]:
        """Fit and publish; returns the content of ``card.json``.

        Raises:
            UserError: ``out`` exists, an unfinished fit of another command is in the way, no sample is usable.
        """
        if self.extend is not None and not hasattr(self.pipeline, "extend"):
            raise UserError(f"pipeline '{self.config.pipeline_name}' cannot extend a model")
        if self.out.exists() or self.out.is_symlink():
            if not self.overwrite:
                raise UserError(f"{self.out}: exists already; --overwrite replaces it, or choose another --out")
            require_replaceable(self.out)
        started_s = time.perf_counter()
        work = self.out.absolute().with_name(f".{self.out.absolute().name}.fit")
        self._prepare(work)
        self.console.log_to(work / "log.txt")
        try:
            card = self._fit(work, started_s)
        except BaseException:
            self.console.note(
                f"unfinished; the same command goes on from what {work.relative_to(self.out.absolute().parent)} holds"
            )
            raise
        finally:
            self.console.log_to(None)
        shutil.copyfile(work / "log.txt", work / "model" / "log.txt")
        publish(work / "model", self.out)
        shutil.rmtree(work)
        return card

    def _identity(self) -> dict[str, Any]:
        identity = {**self.config.identity(), "data:reader": self.reader_name}
        identity |= {f"data:{key}": value for key, value in data_identity(self.reader).items()}
        if self.extend is not None:
            identity["extend"] = folder_digest(self.extend, VOLATILE)[:16]
        return identity

    def _prepare(self, work: Path) -> None:
        """A work folder of exactly this command, continued or new."""
        identity = self._identity()
        record = work / "fit.json"
        if record.exists():
            changed = differences(read_json(record)["identity"], identity)
            if not changed:
                self.console.note(f"continuing the unfinished fit of {self.out}")
            elif self.overwrite:
                shutil.rmtree(work)
            else:
                raise ConfigError(
                    f"{work}: holds an unfinished fit of another command ({shortened(changed)}); "
                    "repeat that command, or --overwrite starts anew"
                )
        elif work.exists():
            shutil.rmtree(work)  # killed before it held anything
        try:
            work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{work}: cannot be made ({error.strerror or error})") from None
        if not record.exists():
            write_json(record, {"schema": SCHEMA, "identity": identity})
        (work / "log.txt").touch()

    def _fit(self, work: Path, started_s: float) -> dict[str, Any]:
        train, bad = self._usable(work)
        model = work / "model"
        shutil.rmtree(model, ignore_errors=True)
        model.mkdir()
        runner = self.config.runner
        set_threads(runner.threads)
        set_seed(runner.seed)
        context = WorkContext(work / "cache", runner.seed, self.console)
        if self.extend is not None:
            self.pipeline.extend(self.extend, train, model, context)  # type: ignore[attr-defined]
        else:
            self.pipeline.fit(train, model, context)
        card = {
            "schema": SCHEMA,
            "pipeline": self.config.pipeline_name,
            "created_by": {"python": platform.python_version(), **versions()},
            "data": {"reader": self.reader_name, **data_identity(train)},
            "n_samples": len(train),
            "n_bad": len(bad),
            "bad": [{"name": self.reader.key(i), "reason": reason} for i, reason in bad.items()],
            "seed": runner.seed,
            **({"extends": folder_digest(self.extend, VOLATILE)[:16]} if self.extend is not None else {}),
        }
        write_text(model / "config.yaml", dump_yaml(self.config))
        write_json(model / "card.json", card)
        self.pipeline.load(model)  # a model that cannot be loaded is never published
        timing = {"schema": SCHEMA, "total_s": round(time.perf_counter() - started_s, 3), "stages_s": context.stages_s}
        write_json(model / "timing.json", timing)
        return card

    def _usable(self, work: Path) -> tuple[Reader, Mapping[int, str]]:
        """The samples that can be read, and why the others cannot."""
        if not self.config.data.skip_bad:
            return self.reader, {}
        record = work / "bad.json"
        if record.exists():
            bad = {int(i): reason for i, reason in read_json(record).items()}
        else:
            bad = readable(self.reader, self.console)
            write_json(record, bad)
        for i, reason in bad.items():
            self.console.note(f"left out {self.reader.key(i)}: {reason}")
        good = [i for i in range(len(self.reader)) if i not in bad]
        if not good:
            raise UserError(f"{self.reader.name}: none of the {len(self.reader)} samples is usable")
        return Subset(self.reader, good), bad


def _write_arrays(file: BinaryIO, arrays: Mapping[str, NDArray[Any]]) -> None:
    """An .npz without pickles, and with the same bytes each time. The number in front of a name keeps the order."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for index, (name, array) in enumerate(arrays.items()):
            info = zipfile.ZipInfo(f"{index:06d}/{name}.npy")
            with archive.open(info, "w", force_zip64=True) as part:
                np.lib.format.write_array(part, array, allow_pickle=False)


def _read_arrays(path: Path) -> Arrays | None:
    """The arrays in the order they were given, or None where there is no readable file."""
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {}
            for info in archive.infolist():
                with archive.open(info) as part:
                    name = info.filename.partition("/")[2].removesuffix(".npy")
                    arrays[name] = np.lib.format.read_array(part, allow_pickle=False)
            return arrays
    except (OSError, ValueError, zipfile.BadZipFile):
        return None
