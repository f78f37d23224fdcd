# SPDX-License-Identifier: Apache-2.0
"""The protocols between readers, pipelines and the runner, and the specs by which plug-ins announce them.

A plug-in is an entry point in the group ``vision3d.readers`` or ``vision3d.pipelines`` that loads to a
:class:`ReaderSpec` or :class:`PipelineSpec`. The module that holds the spec must be cheap to import
(no torch); the heavy part is imported inside ``open`` or ``make``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vision3d.types import Exhibit, Metric

T = TypeVar("T")


@dataclass(frozen=True)
class DataConfig:
    """Which samples to read, and how. The options are the same for every reader.

    Attributes:
        reader: name of the reader; guessed from the folder when empty.
        split: ``all``, or a split the data set defines (``train``, ``test``).
        truth: file of true poses that replaces the data set's own (e.g. SfM pseudo ground truth).
        select: ``START:STOP:STEP``, samples by position after split; negative numbers count from the end.
        size: longest image side in pixels; larger images are shrunk and intrinsics follow. 0 keeps the size.
        skip_bad: count unreadable samples and go on, instead of stopping at the first.
    """

    reader: str = ""
    split: str = "all"
    truth: Path | None = None
    select: str = "::"
    size: int = 0
    skip_bad: bool = False


@runtime_checkable
class Reader(Protocol):
    """A data set as a sequence of samples of one type. Truth is kept apart from the samples.

    ``bad`` maps the position of a sample that is known to be unusable before it is read (a missing
    pose file, say) to the DataError's text; a reader opened without ``skip_bad`` raises instead.
    Items raise :class:`vision3d.errors.DataError` when the sample cannot be read.
    """

    name: str
    samples: type
    bad: Mapping[int, str]

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...
    def key(self, index: int) -> str:
        """The sample's unique name, without reading the sample."""
        ...

    def truth(self, index: int) -> Any | None:
        """The sample's truth, None where the data set has none."""
        ...


class FitContext(Protocol):
    """What the runner gives to ``fit``: progress, a log, and a cache that survives a kill."""

    seed: int

    def cached(self, key: str, make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        """``make()``'s arrays, from disk if a run before this one got that far. Written atomically."""
        ...

    def has(self, key: str) -> bool:
        """Whether ``cached(key, ...)`` would read from disk: a loop finds out where to go on."""
        ...

    def forget(self, key: str) -> None:
        """Remove what is kept under ``key``, if anything: an older checkpoint, once a newer one is there."""
        ...

    def progress(self, items: Iterable[T], total: int, label: str) -> Iterator[T]:
        """The items, with a progress bar."""
        ...

    def log(self, message: str) -> None:
        """One line to the user and to the log file."""
        ...


class Pipeline(Protocol):
    """A method on samples of one type.

    ``fit`` is absent when there is nothing to fit. ``draw``, ``baselines``, ``export``, ``exhibit`` and ``describe``
    may be absent too: then the run has no pictures, no baselines and so on. More methods may be there:
    ``extend(model: Path, train, out, context)`` writes the model in the folder ``model`` with more samples to the
    folder ``out``; ``export_model(model, folder) -> list[Path]`` writes a loaded model in public formats;
    ``check(sample)`` raises a DataError for a sample that cannot be used, which is then treated like one that cannot be
    read; ``cloud_view(model, sample, result, truth=None) -> CloudView | None`` has point clouds of one result, to be
    turned around in the report; ``write_tables(results, truths, folder)`` writes what is known per class or per object
    into files, after an ``eval``.

    A result has ``name``, ``to_json()`` and ``from_json(data)``; the runner also looks at ``status`` (anything but
    ``ok`` is a failure), ``reason`` and ``timing_ms`` (stage -> milliseconds) where it has them. A result that has
    ``arrays()`` (name -> array) and ``with_arrays(arrays)`` has these kept in a file of their own and is read back only
    when it is looked at, so that a run may be larger than the memory.

    ``deterministic = True`` says that the seed changes nothing: an evaluation over several seeds steps it once.

    ``sees_truth = True`` is for answers that are no method's: ``step(model, sample, previous, truth=...)`` gets the
    truth, None in a ``run``. The labels themselves as results show what a score can reach at most.
    """

    samples: type
    result_type: type

    def fit(self, train: Reader, out: Path, context: FitContext) -> None:
        """Build the model from all samples of ``train`` and write its files into the folder ``out``."""
        ...

    def load(self, model: Path) -> Any:
        """The model that ``fit`` wrote; raises DataError on a damaged or foreign folder."""
        ...

    def step(self, model: Any, sample: Any, previous: Any | None = None) -> Any:
        """The result for one sample. ``previous`` is the result of the sample before it, if any."""
        ...

    def failure(self, name: str, reason: str) -> Any:
        """The result that stands for a sample that could not be read or made ``step`` raise."""
        ...

    def score(self, results: Sequence[Any], truths: Sequence[Any]) -> list[Metric]:
        """Metrics over all results, failures counted; ``results[i]`` belongs to ``truths[i]``."""
        ...

    def draw(self, model: Any, sample: Any, result: Any, truth: Any | None = None) -> NDArray[np.uint8]:
        """(H, W, 3) RGB picture of one result; ``truth`` is None in a ``run`` and where it is not known."""
        ...

    def baselines(self) -> Mapping[str, Pipeline]:
        """Simpler methods on the same model, to be printed beside this one by ``eval --baselines``."""
        ...

    def export(self, results: Sequence[Any], folder: Path) -> None:
        """Write the results in the field's public formats (a TUM trajectory, say) into ``folder``."""
        ...

    def exhibit(self, model: Any, results: Sequence[Any], truths: Sequence[Any]) -> Exhibit:
        """Charts and scenes of the whole run. Truths may be an empty sequence."""
        ...

    def describe(self, model: Any) -> Mapping[str, Any]:
        """Facts about the model for ``inspect``: JSON-able, in the order they are to be printed."""
        ...


@dataclass(frozen=True)
class ReaderSpec:
    """A reader's announcement.

    Attributes:
        match: how sure the reader is that a path (or URI) is its own, 0 to 1. Must be fast and never raise.
        open: path (or URI) and options -> Reader; raises DataError with the file at fault.
        card: name of the YAML card in ``datasets/``, empty for a plain format.
        check: path -> problems, one line each; empty when all is well.
        lenient: source -> source that leaves out and counts bad parts of samples (labels of an image, say) where the
            whole sample would be bad; taken under ``--skip-bad``.
    """

    name: str
    summary: str
    samples: str
    match: Callable[[str], float]
    open: Callable[[str, DataConfig], Reader]
    card: str = ""
    check: Callable[[str], list[str]] | None = None
    extras: tuple[str, ...] = ()
    lenient: Callable[[str], str] | None = None


@dataclass(frozen=True)
class PipelineSpec:
    """A pipeline's announcement: ``samples`` is the name of the type it takes, e.g. ``Frame``.

    Attributes:
        default_model: configuration -> folder (or weights file) that is used where ``--model`` is not given; None where
            the configuration needs no model. Raises a UserError that says how to get one. When the field itself is
            None, a pipeline with ``has_fit`` needs ``--model``.
        eval_seeds: seeds that ``eval`` runs through unless told otherwise: numbers then come with their spread.
        eval_baselines: whether ``eval`` prints the baselines unless told otherwise.
        tiny: configuration -> one that is fitted in seconds, whatever comes of it; `doctor --full` takes it.
    """

    name: str
    summary: str
    samples: str
    config_type: type
    make: Callable[[Any], Pipeline]
    has_fit: bool = True
    extras: tuple[str, ...] = ()
    default_model: Callable[[Any], Path | None] | None = None
    eval_seeds: int = 1
    eval_baselines: bool = False
    tiny: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class WriterSpec:
    """A writer's announcement (entry point in ``vision3d.writers``): samples of one type into files of one format.

    Attributes:
        write: (name, sample, truth or None, folder) -> files written. The folder exists. Called once per sample, in
            order; writes each file atomically.
        finish: (folder, names) -> more files, once after all samples (an index, say); None when there are none.
    """

    name: str
    summary: str
    samples: str
    write: Callable[[str, Any, Any | None, Path], list[Path]]
    finish: Callable[[Path, Sequence[str]], list[Path]] | None = None
    extras: tuple[str, ...] = ()
