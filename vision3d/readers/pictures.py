# SPDX-License-Identifier: Apache-2.0
"""A folder of images, or one image, without any labels: what a detector is pointed at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.readers._boxes_images import name_problem
from vision3d.readers._images import read_image
from vision3d.readers._source import IMAGE_SUFFIXES, list_images, parse_source, split_source
from vision3d.types import LabeledImage


class PicturesReader:
    """Images by name, without points or boxes. Implements :class:`vision3d.contracts.Reader`.

    Raises:
        DataError: there is no image, two have one name up to the suffix, or a name is not UTF-8.
        ConfigError: a split or a truth is asked for.
    """

    samples: type = LabeledImage

    def __init__(self, source: str, config: DataConfig) -> None:
        path, _ = parse_source(source, {})
        root = Path(path)
        if config.split not in ("", "all"):
            raise ConfigError(f"a folder of images has no split '{config.split}'; leave --split out")
        if config.truth is not None:
            raise ConfigError("images without labels take no file of true poses")
        if not root.exists():
            raise DataError(root, "no such file or folder")
        self.files = [root] if root.is_file() else list_images(root)
        if not self.files:
            raise DataError(root, f"holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        self.name = root.stem if root.is_file() else root.resolve().name
        seen: dict[str, Path] = {}
        for file in self.files:
            wrong = name_problem(file)
            if wrong is not None:
                raise wrong
            if file.stem in seen:
                raise DataError(file, f"has the name of {seen[file.stem].name} up to the suffix; rename one")
            seen[file.stem] = file
        self.bad: Mapping[int, str] = {}

    def __len__(self) -> int:
        return len(self.files)

    def key(self, index: int) -> str:
        return self.files[index].stem

    def __getitem__(self, index: int) -> LabeledImage:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return LabeledImage(self.key(index), read_image(self.files[index]), ())

    def truth(self, index: int) -> None:
        return None


def match(source: str) -> float:
    """A tenth: any reader that finds labels beside the images knows more."""
    try:
        path = Path(split_source(source)[0])
        if path.is_file():
            return 0.1 if path.suffix.lower() in IMAGE_SUFFIXES else 0.0
        return 0.1 if path.is_dir() and list_images(path) else 0.0
    except OSError:
        return 0.0


def check(source: str) -> list[str]:
    """Images that cannot be read."""
    try:
        reader = PicturesReader(source, DataConfig())
    except (DataError, ConfigError) as error:
        return [str(error)]
    problems = []
    for index in range(len(reader)):
        try:
            reader[index]
        except DataError as error:
            problems.append(str(error))
    return problems


SPEC = ReaderSpec(
    name="pictures",
    summary="folder of images without any labels, for detectors",
    samples="LabeledImage",
    match=match,
    open=PicturesReader,
    check=check,
)
