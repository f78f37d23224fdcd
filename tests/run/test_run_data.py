# SPDX-License-Identifier: Apache-2.0
"""Guessing, opening and selecting data."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_fixtures import install

from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError, DataError, UserError
from vision3d.run.console import Console
from vision3d.run.data import Subset, data_identity, open_data, readable, select_positions

bounds = st.none() | st.integers(-15, 15)


@settings(deadline=None)
@given(bounds, bounds, st.none() | st.integers(-4, 4).filter(bool), st.integers(0, 12))
def test_select_is_pythons_slice(start: int | None, stop: int | None, step: int | None, count: int) -> None:
    text = ":".join("" if part is None else str(part) for part in (start, stop, step))
    wanted = list(range(count))[start:stop:step]
    if wanted:
        assert select_positions(count, text, "data") == wanted
    else:
        with pytest.raises(ConfigError, match=f"leaves none of the {count} samples of data"):
            select_positions(count, text, "data")


@pytest.mark.parametrize("text", ["", "3", "a:b", "1:2:3:4", "::0", "1.5::"])
def test_what_is_no_slice(text: str) -> None:
    with pytest.raises(ConfigError, match="is not START:STOP:STEP"):
        select_positions(5, text, "data")


def opened(source: object, wanted: str = "", **options: object) -> tuple[Subset, str]:
    said = io.StringIO()
    data = open_data(str(source), DataConfig(**options), Console(said), wanted)  # type: ignore[arg-type]
    assert isinstance(data.reader, Subset)
    return data.reader, said.getvalue()


def test_the_guess_and_the_readers_notes_are_told(toys: Path, numbers: Callable[..., Path]) -> None:
    reader, said = opened(numbers(4), select="1::2")
    assert said == "reader: numbers (guessed, score 0.90)\nnumbers: 4 numbers\n"
    assert [reader.key(i) for i in range(len(reader))] == ["n001", "n003"]
    assert (reader[1].value, reader[-1].value, reader.truth(1)) == (4.0, 4.0, 8.0)
    with pytest.raises(IndexError):
        reader[2]


def test_subsets_pass_through_what_is_not_by_position(toys: Path, numbers: Callable[..., Path]) -> None:
    reader, _ = opened(numbers(4), select="::-1")
    assert reader.path.name == "numbers.json"
    assert not hasattr(reader, "camera")
    base = reader.base
    base.camera = lambda index: f"camera {index}"  # type: ignore[attr-defined]
    assert reader.camera(0) == "camera 3"


def test_readers_are_named_by_option_or_prefix(toys: Path, numbers: Callable[..., Path]) -> None:
    folder = numbers(3)
    for source, options in ((folder, {"reader": "numbers"}), (f"numbers:{folder}", {})):
        reader, said = opened(source, **options)
        assert len(reader) == 3
        assert "guessed" not in said
    with pytest.raises(DataError, match=r"numbers.json: cannot be read"):
        opened("numbers:nowhere?x=1")


def test_bad_samples_stop_unless_they_are_outside_the_selection(toys: Path, numbers: Callable[..., Path]) -> None:
    folder = numbers(6, row2=["n002", "absent", 1.0], row4=["n004", "absent", 1.0])
    with pytest.raises(
        UserError, match=r"n002 has no entry \(and 1 more\); --skip-bad leaves out and counts what is bad"
    ):
        opened(folder)
    assert len(opened(folder, select="1::2")[0]) == 3
    reader, _ = opened(folder, skip_bad=True, select="2:")
    assert list(reader.bad) == [0, 2]


def test_unreadable_samples_are_found_by_reading(toys: Path, numbers: Callable[..., Path]) -> None:
    folder = numbers(5, row1=["n001", "absent", 1.0], row3=["n003", None, 1.0])
    reader, _ = opened(folder, skip_bad=True)
    bad = readable(reader, Console())
    assert list(bad) == [1, 3]
    assert bad[3].endswith("n003 cannot be read")


def test_no_reader_or_two(toys: Path, numbers: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such file or folder, and no reader knows it"):
        opened("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no reader recognises this; name one with --reader \(.*numbers"):
        opened(tmp_path / "empty")
    (toys / "twin.py").write_text(
        "from vision3d.contracts import ReaderSpec\nimport vision3d_toys as t\n"
        "TWIN = ReaderSpec('twin', '', 'Number', t.match, t.NumberReader)\n"
        "def bad(source): raise RuntimeError('never raise')\n"
        "ROUGH = ReaderSpec('rough', '', 'Number', bad, t.NumberReader)\n"
    )
    install(toys, "twins", {"vision3d.readers": {"twin": "twin:TWIN", "rough": "twin:ROUGH"}})
    with pytest.raises(DataError, match=r"could be numbers and twin \(score 0.90 each\); choose with --reader"):
        opened(numbers(2))
    _, said = opened(numbers(2), reader="twin")
    assert said == "twin: 2 numbers\n"


def test_samples_of_another_type(toys: Path, numbers: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="reader 'numbers' gives samples of type Number, the pipeline takes Frame"):
        opened(numbers(2), wanted="Frame", reader="numbers")
    with pytest.raises(DataError, match="no reader recognises this"):
        opened(numbers(2), wanted="Frame")


def test_identity_of_data_sees_names_order_and_truth(toys: Path, numbers: Callable[..., Path]) -> None:
    base = data_identity(opened(numbers(4))[0])
    assert base == data_identity(opened(numbers(4))[0])
    assert base["samples"] != data_identity(opened(numbers(4), select="::-1")[0])["samples"]
    changed = data_identity(opened(numbers(4, row1=["n001", 2.0, 5.0]))[0])
    assert (changed["samples"], changed["truth"] != base["truth"]) == (base["samples"], True)
