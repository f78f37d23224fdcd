# SPDX-License-Identifier: Apache-2.0
"""``fit``: a model folder that is whole or absent, built in a work folder that survives a kill."""

from __future__ import annotations

import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vision3d.contracts import Pipeline, Reader
from vision3d.errors import ConfigError, DataError, UserError
from vision3d.run.arrays import Arrays, check_arrays, read_arrays, write_arrays
from vision3d.run.config import FullConfig, differences, dump_yaml
from vision3d.run.console import Console
from vision3d.run.data import Subset, data_identity, readable
from vision3d.run.environment import set_seed, set_threads, versions
from vision3d.run.files import digest, folder_digest, read_json, write_json, write_text
from vision3d.run.folder import shortened, slug
from vision3d.run.modelfolder import SCHEMA, VOLATILE, publish, require_replaceable

T = TypeVar("T")


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
        arrays = self._kept(key)
        if arrays is None:
            start_s = time.perf_counter()
            set_seed(self.seed, key)
            arrays = {name: np.asarray(array, order="C") for name, array in make().items()}
            write_arrays(self._path(key), arrays)
            self.stages_s[key] = round(time.perf_counter() - start_s, 3)
        else:
            self.console.note(f"{key}: from an earlier run")
        set_seed(self.seed, f"after {key}")
        return arrays

    def has(self, key: str) -> bool:
        """Whether ``cached(key, ...)`` would read from disk."""
        try:
            check_arrays(self._path(key))
        except DataError:
            return False
        return True

    def forget(self, key: str) -> None:
        """Remove what is kept under ``key``, if anything. The key stays used."""
        self._path(key).unlink(missing_ok=True)

    def _kept(self, key: str) -> Arrays | None:
        try:
            return read_arrays(self._path(key))
        except DataError:
            return None  # never written, or damaged: made anew either way

    def _path(self, key: str) -> Path:
        return self._cache / f"{slug(key)[:80]}-{digest(key)[:8]}.npz"

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
        data = data_identity(self.reader)
        self._prepare(work, data)
        self.console.log_to(work / "log.txt")
        try:
            card = self._fit(work, data, started_s)
        except BaseException as error:
            if isinstance(error, UserError) and not any((work / "cache").glob("*")):
                # Nothing was computed that the mended command could go on from.
                self.console.log_to(None)
                shutil.rmtree(work)
                raise
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

    def take_part(self) -> None:
        """What every process of a shared training but the first does: the same work, and nothing is published.

        The files go to a private folder that is removed. Its cache is empty at the start, also where the first
        process continues an unfinished fit: what that one found, it has to send.
        """
        with tempfile.TemporaryDirectory(prefix="vision3d-fit-") as temp:
            self._build(Path(temp))

    def _identity(self, data: Mapping[str, Any]) -> dict[str, Any]:
        identity = {**self.config.identity(), "data:reader": self.reader_name}
        identity |= {f"data:{key}": value for key, value in data.items()}
        if self.extend is not None:
            identity["extend"] = folder_digest(self.extend, VOLATILE)[:16]
        return identity

    def _prepare(self, work: Path, data: Mapping[str, Any]) -> None:
        """A work folder of exactly this command, continued or new."""
        identity = self._identity(data)
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

    def _fit(self, work: Path, data: Mapping[str, Any], started_s: float) -> dict[str, Any]:
        train, bad, stages_s = self._build(work)
        model, runner = work / "model", self.config.runner
        card = {
            "schema": SCHEMA,
            "pipeline": self.config.pipeline_name,
            "created_by": {"python": platform.python_version(), **versions()},
            "data": {"reader": self.reader_name, **(data if train is self.reader else data_identity(train))},
            "n_samples": len(train),
            "n_bad": len(bad),
            "bad": [{"name": self.reader.key(i), "reason": reason} for i, reason in bad.items()],
            "seed": runner.seed,
            **({"extends": folder_digest(self.extend, VOLATILE)[:16]} if self.extend is not None else {}),
        }
        write_text(model / "config.yaml", dump_yaml(self.config))
        write_json(model / "card.json", card)
        self.pipeline.load(model)  # a model that cannot be loaded is never published
        timing = {"schema": SCHEMA, "total_s": round(time.perf_counter() - started_s, 3), "stages_s": stages_s}
        write_json(model / "timing.json", timing)
        return card

    def _build(self, work: Path) -> tuple[Reader, Mapping[int, str], dict[str, float]]:
        """Let the pipeline write its files into ``work/model``; the samples used, those left out, and the times."""
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
        return train, bad, context.stages_s

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
