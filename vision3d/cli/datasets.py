# SPDX-License-Identifier: Apache-2.0
"""``vision3d datasets list|show|check``: the cards of known data sets, and checks of a copy on disk."""

from __future__ import annotations

from typing import Any

from vision3d.cli.arguments import Parser
from vision3d.cli.output import Output, table
from vision3d.errors import UserError


def datasets(args: list[str], out: Output) -> int:
    """``vision3d datasets list``, ``show NAME`` or ``check NAME PATH``; a check with problems returns 1."""
    parser = Parser("datasets", description="Cards of known data sets, and checks of a copy on disk.")
    parser.add_argument("action", choices=("list", "show", "check"))
    parser.add_argument("name", nargs="?", help="card to show, or card or reader to check with")
    parser.add_argument("path", nargs="?", help="folder to check")
    options = parser.parse_args(args)
    given = [value for value in (options.name, options.path) if value is not None]
    wanted = {"list": [], "show": ["NAME"], "check": ["NAME", "PATH"]}[options.action]
    if len(given) != len(wanted):
        raise UserError(f"usage: vision3d {' '.join(['datasets', options.action, *wanted])}")
    if options.action == "check":
        return _check(options.name, options.path, out)

    from vision3d.readers.cards import load_cards

    cards = load_cards()
    if options.action == "list":
        rows = [[name, card["reader"], card["licence"].partition(" (")[0]] for name, card in cards.items()]
        document = {"datasets": [{"name": name, **_head(card)} for name, card in cards.items()]}
        out.result(document, table(["data set", "reader", "licence"], rows, right=False))
        return 0
    if options.name not in cards:
        raise UserError(f"no card '{options.name}'; there are: {', '.join(cards)}")
    card = cards[options.name]
    out.result(card, "\n".join(f"{key}:\n{_indented(value)}" for key, value in card.items()))
    return 0


def _check(name: str, path: str, out: Output) -> int:
    from vision3d.readers import cards

    problems = cards.check(name, path)
    text = "\n".join(problems) if problems else f"{path}: no problem found"
    out.result({"name": name, "path": path, "ok": not problems, "problems": problems}, text)
    return 1 if problems else 0


def _head(card: dict[str, Any]) -> dict[str, Any]:
    return {key: card[key] for key in ("what", "licence", "home", "reader")}


def _indented(value: Any) -> str:
    if isinstance(value, dict):
        lines = [f"{key}: {item}" for key, item in value.items()]
    elif isinstance(value, list):
        lines = [str(item) for item in value]
    else:
        lines = str(value).rstrip().splitlines()
    return "\n".join(f"  {line}" for line in lines)
