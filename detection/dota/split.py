# SPDX-License-Identifier: Apache-2.0
"""A data set of large images cut into tiles: images, labels or points, and where each tile lies.

::

    images/<id>__<window>__<x>___<y>.png
    labelTxt/<id>__<window>__<x>___<y>.txt   x1 y1 .. x4 y4 class difficult, where the true boxes are known
    points/<id>__<window>__<x>___<y>.txt     x y class, where only points are known
    classes.txt                              one name a line
    tiles.json                               image, place and scale of every tile

Work goes on beside the folder to be, image by image, and the folder takes its name when all is done. A killed split
that is started again goes on after the last complete image and ends with the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from detection.dota.config import SplitConfig
from detection.dota.sidecar import SIDECAR, Sidecar, read_sidecar
from detection.dota.tiles import Cut, cut_image, file_name
from detection.dota.windows import Window
from vision3d.atomic import whole_file
from vision3d.contracts import Reader
from vision3d.errors import DataError, UserError

DONE = ".done"  # in the unfinished folder: a file per complete image
Track = Callable[[Iterable[int], int, str], Iterable[int]]


def quietly(items: Iterable[int], total: int, label: str) -> Iterable[int]:
    """The items, without a word."""
    return items


@dataclass
class Outcome:
    """What a split made.

    Attributes:
        images: number of images cut.
        tiles: number of tiles.
        objects: labels written; one that several tiles hold counts in each.
        points: points written, counted the same way.
        forced: objects that no window holds well enough: they are in the one that holds most.
        outside: objects that lie outside of their image altogether, in no tile.
        bad: name and reason of images left out.
        resumed: images that an earlier try had done.
    """

    images: int = 0
    tiles: int = 0
    objects: int = 0
    points: int = 0
    forced: int = 0
    outside: int = 0
    bad: list[dict[str, str]] = field(default_factory=list)
    resumed: int = 0


def split(
    reader: Reader,
    folder: Path,
    config: SplitConfig,
    identity: Mapping[str, Any],
    skip_bad: bool = False,
    track: Track = quietly,
    threads: int = 2,
) -> Outcome:
    """Cut all images of ``reader`` into ``folder``, which is whole or absent.

    Args:
        identity: JSON-able facts about the data that the tiles follow from; with others, an unfinished split is not
            gone on with.
        skip_bad: leave images out that cannot be read, and count them.
        track: shows progress over positions.
        threads: tiles written at once.

    Raises:
        UserError: the folder holds something else; or an image is bad without ``skip_bad``.
        DataError: two images would share the names of their tiles, or a class cannot stand in a label file.
    """
    facts = {
        "dataset": reader.name,
        "options": json.loads(json.dumps(asdict(config))),
        "identity": json.loads(json.dumps(identity)),
    }
    names = _file_names(reader)
    folder = folder.absolute()
    if _finished(folder, facts):
        return _outcome(read_sidecar(folder))
    temp = folder.with_name(f".{folder.name}.split")
    _prepare(folder, temp, facts)
    resumed = len(list((temp / DONE).glob("*.json"))) if (temp / DONE).exists() else 0
    if not _finished(temp, facts):
        with ThreadPoolExecutor(max(1, threads)) as pool:
            for index in track(range(len(reader)), len(reader), "splitting"):
                done = temp / DONE / f"{index:06d}.json"
                if not done.exists():
                    cut = _cut(reader, index, names[index], temp, config, skip_bad, pool)
                    with whole_file(done) as file:
                        file.write(json.dumps(asdict(cut)).encode())
        _finish(temp, facts)
    outcome = _outcome(read_sidecar(temp))
    if not outcome.images:
        shutil.rmtree(temp, ignore_errors=True)
        raise UserError(f"{reader.name}: none of the {len(reader)} images can be read")
    shutil.rmtree(temp / DONE, ignore_errors=True)
    if folder.exists():
        folder.rmdir()
    temp.rename(folder)
    outcome.resumed = resumed
    return outcome


def _file_names(reader: Reader) -> list[str]:
    """The images' names as names of files.

    Raises:
        DataError: two are the same.
    """
    names: dict[str, str] = {}
    for index in range(len(reader)):
        key = reader.key(index)
        other = names.setdefault(file_name(key), key)
        if other != key:
            raise DataError(key, f"its tiles would have the names of those of '{other}'; rename one of the images")
    return list(names)


def _finished(folder: Path, facts: Mapping[str, Any]) -> bool:
    """Whether the folder holds just this split, complete but for cleaning up."""
    if not (folder / SIDECAR).is_file():
        return False
    found = read_sidecar(folder).facts
    return all(found.get(key) == value for key, value in facts.items())


def _prepare(folder: Path, temp: Path, facts: Mapping[str, Any]) -> None:
    """Make the unfinished folder, or clean one that was left behind.

    Raises:
        UserError: the folder exists and is not empty, or the unfinished one is of another split.
    """
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise UserError(f"{folder}: exists already and is not an empty folder; choose another one")
    task = temp / DONE / "task"
    text = json.dumps(facts, sort_keys=True).encode()
    try:
        if temp.exists():
            same = task.read_bytes() == text if task.is_file() else _finished(temp, facts)
            if not same and (task.is_file() or (temp / SIDECAR).is_file()):
                raise UserError(f"{temp}: an unfinished split of other data or options; remove it first")
            for left in [path for path in temp.rglob(".*.tmp*") if path.is_file()]:
                left.unlink()  # files that a kill cut short
        (temp / DONE).mkdir(parents=True, exist_ok=True)
        if not task.is_file():
            with whole_file(task) as file:
                file.write(text)
        for name in () if (temp / SIDECAR).exists() else ("images", "labelTxt", "points"):
            (temp / name).mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{temp}: cannot be made ({error.strerror or error})") from None


def _cut(
    reader: Reader, index: int, name: str, folder: Path, config: SplitConfig, skip_bad: bool, pool: ThreadPoolExecutor
) -> Cut:
    """One image, or why not."""
    key = reader.key(index)
    try:
        if index in reader.bad:
            raise DataError(key, reader.bad[index])
        sample = reader[index]
        truth = reader.truth(index)
    except DataError as error:
        reason = reader.bad.get(index, str(error))
        if not skip_bad:
            raise UserError(f"{reason}; --skip-bad leaves such images out and counts them") from None
        return Cut(key, reason=reason)
    try:
        return cut_image(sample, truth, name, folder, config, pool)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from None


def _finish(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the list of tiles from the files of the complete images: the last file, so that it means all is there."""
    cuts = [Cut(**json.loads(path.read_text("utf-8"))) for path in sorted((folder / DONE).glob("*.json"))]
    good = [cut for cut in cuts if not cut.reason]
    classes = good[0].classes if good else []
    # Folders that nothing was written to say nothing, and would be read as a data set without objects.
    for name in ("labelTxt", "points"):
        if not any((folder / name).iterdir()):
            (folder / name).rmdir()
    if classes:
        with whole_file(folder / "classes.txt") as file:
            file.write("".join(f"{name}\n" for name in classes).encode())
    counts = {key: sum(getattr(cut, key) for cut in good) for key in ("objects", "points", "forced", "outside")}
    bad = [{"name": cut.image, "reason": cut.reason} for cut in cuts if cut.reason]
    sidecar = Sidecar({**facts, "classes": list(classes), **counts, "bad": bad})
    for cut in good:
        sidecar.images[cut.image] = cut.size[0], cut.size[1]
        for tile, x, y, size, rate, scale in cut.tiles:
            sidecar.windows[tile] = cut.image, Window(x, y, size, rate), scale
    sidecar.write(folder / SIDECAR)


def _outcome(sidecar: Sidecar) -> Outcome:
    facts = sidecar.facts
    return Outcome(
        len(sidecar.images),
        len(sidecar.windows),
        facts["objects"],
        facts["points"],
        facts["forced"],
        facts["outside"],
        facts["bad"],
    )


def default_threads() -> int:
    """Tiles written at once: compression takes most of the time, and a few threads hide it."""
    return min(4, os.cpu_count() or 1)
