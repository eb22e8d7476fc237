"""What the layouts of a user's data share."""

from __future__ import annotations

import colorsys
import itertools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from ...files import write_whole
from ..checking.images import IMAGE_SUFFIXES

SPLIT_NAMES = dict(
    train=('train', 'training'),
    val=('val', 'valid', 'validation'),
    test=('test', 'testing'),
)

T = TypeVar('T')


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Attributes:
        images: The folder of its images.
        annotations: The COCO JSON, or the folder of masks; None for folders of classes.
        count: Number of images.
        empty: How many of them have no objects; 0 where the task is not detection.
        short_side: The median of their short sides in pixels; 0 where the task is not segmentation.
    """

    images: Path
    annotations: Path | None
    count: int
    empty: int = 0
    short_side: int = 0


@dataclass(frozen=True)
class OwnData:
    """A user's data set.

    Attributes:
        folder: Where it lies.
        layout: How it is laid out, in words, and what was done about what is missing.
        task: What it is for.
        classes: Their names; the place of a name is the number of the class.
        palette: One RGB colour a class, all different.
        splits: The parts: 'train', 'val' and, if there, 'test'.
        masks: Whether it is for detection and every object that is not a crowd has a mask.
    """

    folder: Path
    layout: str
    task: Literal['detection', 'segmentation', 'classification']
    classes: tuple[str, ...]
    palette: list[tuple[int, int, int]]
    splits: dict[str, Split]
    masks: bool


def make_palette(count: int) -> list[tuple[int, int, int]]:
    """Distinct RGB colours, the first ones far apart.

    Args:
        count: How many.

    Returns:
        Always the same colours.
    """
    colours: dict[tuple[int, int, int], None] = {}
    number = 0
    while len(colours) < count:
        # Steps by the golden ratio keep away from earlier hues.
        hue = number * 0.618034 % 1
        saturation, value = 1 - number // 8 % 4 * 0.2, 1 - number // 4 % 3 * 0.25
        red, green, blue = (
            round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value)
        )
        colours[red, green, blue] = None
        number += 1
    return list(colours)


def split_folders(root: Path, holding: str = '') -> dict[str, Path]:
    """Find the folders of splits, such as ``train`` and ``valid``.

    Args:
        root: Where to look.
        holding: A file that they must hold.

    Returns:
        The folders that are there, by 'train', 'val' and 'test'.

    Raises:
        ValueError: If there are two of a split.
    """
    found = {}
    for split, names in SPLIT_NAMES.items():
        there = [name for name in names if (root / name).is_dir()]
        there = [name for name in there if (root / name / holding).exists()]
        if len(there) > 1:
            raise ValueError(f'{root} has {" and ".join(there)}, which mean the same: keep one')
        if there:
            found[split] = root / there[0]
    return found


def with_validation(
    found: dict[str, T], folder: Path, where: Callable[[str], str], training: bool
) -> tuple[dict[str, T], str]:
    """See to it that there is something to train and something to validate on.

    Args:
        found: The splits that are there.
        folder: The data set, for messages.
        where: What is missing, in words, if a split is.
        training: Whether there has to be something to train on.

    Returns:
        The splits, where test is val if there is no other; and what is to be said about that.

    Raises:
        FileNotFoundError: If a split is missing.
    """
    if training and 'train' not in found:
        raise FileNotFoundError(f'{folder} has nothing to train on: there is no {where("train")}')
    if 'val' in found:
        return found, ''
    if 'test' in found:
        # In this order, as the first one decides what ambiguous files mean.
        found = {'val' if split == 'test' else split: part for split, part in found.items()}
        return found, '; no val, so test is used as val'
    raise FileNotFoundError(
        f'{folder} has nothing to validate on: there is no {where("val")}. Move a part of the '
        'training images there, a tenth for example, with all that belongs to them'
    )


def note_on_empty(split: str, source: Path, images: int, annotations: int) -> str:
    """Check that a split has images and annotations.

    Args:
        split: 'train', 'val' or 'test'.
        source: What it was read from.
        images: How many images it has.
        annotations: How many annotations.

    Returns:
        Why it is left out, which only test may be; '' if nothing is missing.

    Raises:
        ValueError: If there is nothing to train or to validate on.
    """
    lacking = 'images' if not images else 'annotations' if not annotations else ''
    if not lacking:
        return ''
    if split == 'test':
        return f'; test is left out, as it has no {lacking}'
    purpose = 'train' if split == 'train' else 'validate'
    raise ValueError(f'{source} has no {lacking}, so there is nothing to {purpose} on: add some')


def check_classes(names: Sequence[str], source: Path) -> tuple[str, ...]:
    """Check that no name is there twice, and none is empty.

    Args:
        names: The classes.
        source: What they were read from.

    Returns:
        The classes.

    Raises:
        ValueError: Names a class that is there twice, or the place of an empty name.
    """
    seen: set[str] = set()
    for place, name in enumerate(names):
        if not name:
            raise ValueError(f'{source}: class {place} has no name')
        if name in seen:
            raise ValueError(
                f'{source} has the class {name!r} twice: give each class a name of its own'
            )
        seen.add(name)
    return tuple(names)


def first_ones(things: Iterable[object]) -> str:
    """Up to three of them, for a message."""
    several = list(itertools.islice(things, 4))
    return ', '.join(map(str, several[:3])) + (', ...' if len(several) > 3 else '')


def image_files(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """All images in a folder and the folders in it, sorted, as mmengine lists them."""
    found = []
    for parent, _, files in os.walk(folder):
        found += [
            Path(parent, name)
            for name in files
            if name.lower().endswith(tuple(suffixes)) and not name.startswith('.')
        ]
    return sorted(found)


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        ValueError: If it is not in UTF-8.
    """
    try:
        return path.read_text(encoding='utf-8-sig')  # editors of Windows put a mark in front
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not text in UTF-8 ({error}): save it as that') from None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, which the other processes of a distributed run read and write, too."""
    write_whole(path, json.dumps(content).encode())
