# SPDX-License-Identifier: Apache-2.0
"""``vision3d split DATA... OUT``: large images with boxes or points, cut into tiles."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from vision3d.cli.arguments import Parser
from vision3d.cli.interrupt import interruptible
from vision3d.cli.output import Output
from vision3d.contracts import DataConfig
from vision3d.errors import UserError

EPILOG = """examples:
  vision3d split dota/train tiles                        windows of 1024 pixels that overlap by 200
  vision3d split dota/train tiles --rates 0.5 1 1.5 --gap 500 --resize    three scales, as for a submission

An unfinished split is gone on with by the same command. No object is lost: one that no window holds by --keep of
its area goes to the window that holds most of it."""


def split(args: list[str], out: Output) -> int:
    """Cut the images into a folder that is whole or absent."""
    from argparse import RawDescriptionHelpFormatter

    from detection.dota.config import SplitConfig

    plain = SplitConfig()
    parser = Parser(
        "split",
        description="Cut large images into overlapping tiles in the layout of DOTA, with their labels and tiles.json.",
        epilog=EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("words", nargs="+", metavar="DATA... OUT", help="data to read; last, a new or empty folder")
    add("--window", type=int, default=plain.window, metavar="PIXELS", help=f"side of a tile ({plain.window})")
    add("--gap", type=int, default=plain.gap, metavar="PIXELS", help=f"overlap of tiles ({plain.gap})")
    add("--rates", type=float, nargs="+", default=plain.rates, metavar="RATE", help="scales; 0.5 takes in more (1)")
    add("--resize", action="store_true", help="scale tiles of every rate to the side of --window")
    add("--keep", type=float, default=plain.keep, metavar="PART", help=f"of an object, to be in a tile ({plain.keep})")
    add("--min-filled", type=float, default=plain.min_filled, metavar="PART", help=f"of a tile ({plain.min_filled})")
    add("--points", action="store_true", help="write points too, where the true boxes are known (clicked points)")
    add("--reader", default="", metavar="NAME", help="name of the reader (guessed)")
    add("--split", default="all", metavar="NAME", help="a split that the data set defines (all)")
    add("--select", default="::", metavar="START:STOP:STEP", help="images by position (::)")
    add("--skip-bad", action="store_true", help="leave unreadable images and labels out and count them")
    # argparse takes '-3::' for an option of its own.
    options = parser.parse_intermixed_args(_select_joined(args))
    if len(options.words) < 2:
        raise UserError("split needs DATA and OUT (see vision3d split --help)")
    config = SplitConfig(
        options.window,
        options.gap,
        tuple(options.rates),
        options.min_filled,
        options.keep,
        options.points,
        options.resize,
    )
    *words, target = options.words

    from detection.dota.split import default_threads
    from detection.dota.split import split as cut
    from vision3d.run.console import Console
    from vision3d.run.data import JOIN, data_identity, open_data

    console = Console(sys.stderr)
    data_config = DataConfig(options.reader, options.split, select=options.select, skip_bad=options.skip_bad)
    with interruptible():
        data = open_data(JOIN.join(words), data_config, console, "LabeledImage", "split")
        # Points that were clicked, or drawn otherwise, since the split was killed change neither names nor truth.
        points = getattr(getattr(data.reader, "base", data.reader), "points_identity", "")
        identity = {**data_identity(data.reader), "points": points}
        outcome = cut(data.reader, Path(target), config, identity, options.skip_bad, console.track, default_threads())
    document = {"out": Path(target), "reader": data.spec.name, "dataset": data.reader.name, **asdict(outcome)}
    written = f"{outcome.objects} objects" if outcome.objects or not outcome.points else f"{outcome.points} points"
    parts = [f"{written} in {outcome.tiles} tiles of {outcome.images} images"]
    parts += [f"{outcome.forced} in the tile that holds most of them"] if outcome.forced else []
    parts += [f"{outcome.outside} outside of their image left out"] if outcome.outside else []
    parts += [f"{len(outcome.bad)} bad images left out"] if outcome.bad else []
    parts += [f"{outcome.resumed} images were done"] if outcome.resumed else []
    out.result(document, f"{target}: {', '.join(parts)}")
    return 0


def _select_joined(args: list[str]) -> list[str]:
    """``--select -3::`` as ``--select=-3::``."""
    if "--select" not in args[:-1]:
        return args
    at = args.index("--select")
    return [*args[:at], f"--select={args[at + 1]}", *args[at + 2 :]]
