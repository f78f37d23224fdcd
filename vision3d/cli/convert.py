# SPDX-License-Identifier: Apache-2.0
"""``vision3d convert DATA OUT --to FORMAT``: samples of any reader, written as files of another format."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from vision3d.cli.arguments import Parser
from vision3d.cli.interrupt import interruptible
from vision3d.cli.output import Output
from vision3d.contracts import DataConfig, Reader, WriterSpec
from vision3d.errors import DataError, UserError
from vision3d.run import registry


def convert(args: list[str], out: Output) -> int:
    """Write the samples into a folder that is whole or absent."""
    parser = Parser("convert", description="Write samples, and their truth where it is known, in another format.")
    parser.add_argument("words", nargs="+", metavar="DATA... OUT", help="data to read; last, a new or empty folder")
    parser.add_argument("--to", required=True, metavar="FORMAT", help="name of a writer: `vision3d list writers`")
    parser.add_argument("--reader", default="", metavar="NAME", help="name of the reader (guessed)")
    parser.add_argument("--split", default="all", metavar="NAME", help="a split that the data set defines (all)")
    parser.add_argument("--select", default="::", metavar="START:STOP:STEP", help="samples by position (::)")
    parser.add_argument("--skip-bad", action="store_true", help="leave unreadable samples out and count them")
    # argparse takes '-3::' for an option of its own.
    options = parser.parse_args(_joined(args, "--select"))
    if len(options.words) < 2:
        raise UserError("convert needs DATA and OUT (see vision3d convert --help)")
    *words, target = options.words
    spec: WriterSpec = registry.load(registry.WRITERS, options.to)
    registry.require_extras("writer", spec.name, spec.extras)
    folder = _new_folder(Path(target))

    from vision3d.run.console import Console
    from vision3d.run.data import JOIN, open_data

    console = Console(sys.stderr)
    config = DataConfig(options.reader, options.split, select=options.select, skip_bad=options.skip_bad)
    with interruptible():
        data = open_data(JOIN.join(words), config, console, spec.samples, f"the writer '{spec.name}'")
        names, bad, files = _publish(data.reader, spec, folder, options.skip_bad, console)
    document = {
        "out": Path(target),
        "writer": spec.name,
        "reader": data.spec.name,
        "dataset": data.reader.name,
        "n_samples": len(names),
        "n_files": files,
        "n_bad": len(bad),
        "bad": bad,
    }
    left_out = f", {len(bad)} left out" if bad else ""
    line = f"{target}: {len(names)} samples of {data.reader.name} as {spec.name} ({files} files{left_out})"
    out.result(document, line)
    return 0


def _new_folder(path: Path) -> Path:
    """The folder to write, absolute.

    Raises:
        UserError: something is there already.
    """
    if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise UserError(f"{path}: exists already and is not an empty folder; choose another one")
    return path.absolute()


def _publish(
    reader: Reader, spec: WriterSpec, folder: Path, skip_bad: bool, console: Any
) -> tuple[list[str], list[dict[str, str]], int]:
    """Write beside ``folder`` and rename at the end; what a kill leaves behind, the next try removes.

    Returns:
        Names of the samples written, those left out and why, and the number of files.
    """
    temp = folder.with_name(f".{folder.name}.convert")
    try:
        shutil.rmtree(temp, ignore_errors=True)
        temp.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{temp}: cannot be made ({error.strerror or error})") from None
    try:
        written = _write(reader, spec, temp, skip_bad, console)
        if folder.exists():
            folder.rmdir()
        temp.rename(folder)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    return written


def _write(
    reader: Reader, spec: WriterSpec, folder: Path, skip_bad: bool, console: Any
) -> tuple[list[str], list[dict[str, str]], int]:
    names: list[str] = []
    bad: list[dict[str, str]] = []
    files: set[Path] = set()
    for index in console.track(range(len(reader)), len(reader), f"writing {spec.name}"):
        name = reader.key(index)
        try:
            if index in reader.bad:
                raise DataError(name, reader.bad[index])
            sample = reader[index]
        except DataError as error:
            reason = reader.bad.get(index, str(error))
            if not skip_bad:
                raise UserError(f"{reason}; --skip-bad leaves such samples out and counts them") from None
            console.note(f"left out {name}: {reason}")
            bad.append({"name": name, "reason": reason})
            continue
        files.update(spec.write(name, sample, reader.truth(index), folder))
        names.append(name)
    if not names:
        raise UserError(f"{reader.name}: none of the {len(reader)} samples can be read")
    if spec.finish is not None:
        files.update(spec.finish(folder, names))
    return names, bad, len(files)


def _joined(args: list[str], option: str) -> list[str]:
    """``--select -3::`` as ``--select=-3::``."""
    if option not in args[:-1]:
        return args
    at = args.index(option)
    return [*args[:at], f"{option}={args[at + 1]}", *args[at + 2 :]]
