"""Maps of classes, as mmsegmentation reads them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..exif import image_size
from .findings import Finding, Kind, Tally, raise_it
from .images import IMAGE_SUFFIXES, check_presence, spread, with_details
from .lists import read_lines

IGNORED = 255
_SAMPLE = 50  # maps that are decoded where not all are

_KINDS = dict(
    unreadable=Kind('maps cannot be read', 'replace them'),
    forbidden=Kind('maps may not be read', 'change their permissions (chmod +r)'),
    channels=Kind(
        'maps have several channels',
        'save each with one channel of bytes (indexed or grey PNG), the number of a class a pixel',
    ),
    size=Kind('maps have another size than their image', 'they must agree'),
)


class MapError(ValueError):
    """What is wrong with a map.

    Args:
        kind: 'unreadable', 'forbidden', 'channels', 'size' or 'values'.
        details: In few words.
        sentence: The same for a message that is about this map alone.
    """

    def __init__(self, kind: str, details: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind, self.details = kind, details


@dataclass(frozen=True)
class Labels:
    """What the values of a map stand for.

    Attributes:
        count: The number of classes.
        from_one: Whether 0 is ignored and the classes are numbered from 1 (``reduce_zero_label``).
        known: How many classes the maps have, where the config takes some of them by their names;
            None: those of the config.
    """

    count: int
    from_one: bool = False
    known: int | None = None

    @property
    def last(self) -> int:
        """The largest value of a class."""
        return (self.known or self.count) - (0 if self.from_one else 1)


def read_values(path: Path, image: Path, size: tuple[int, int]) -> np.ndarray:
    """Which of 256 values a map holds.

    Args:
        path: The map.
        image: Its image, for the message.
        size: Width and height of the image.

    Returns:
        For each value, whether it is there.

    Raises:
        MapError: If it cannot be read, or its kind or size are wrong.
    """
    try:
        with Image.open(path) as opened:
            if opened.mode not in ('P', 'L'):
                raise MapError(
                    'channels',
                    opened.mode,
                    f'{path} has pixels of kind {opened.mode}: a mask has one channel of bytes '
                    '(indexed or grey PNG), each pixel the number of a class',
                )
            if opened.size != size:
                width, height = opened.size
                raise MapError(
                    'size',
                    f'{width} x {height} instead of {size[0]} x {size[1]}',
                    f'{path} has {width} x {height} pixels, {image} has '
                    f'{size[0]} x {size[1]}: they must agree',
                )
            return np.bincount(np.asarray(opened).ravel(), minlength=256) > 0
    except PermissionError:
        raise MapError('forbidden', '', f'{path} may not be read (chmod +r)') from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        sentence = f'{path} cannot be read as an image ({error}): replace it'
        raise MapError('unreadable', '', sentence) from None


def beyond(seen: np.ndarray, labels: Labels) -> list[int]:
    """The values of a map that stand for no class and are not ignored."""
    wrong = np.flatnonzero(seen[:IGNORED])
    return [int(value) for value in wrong if value > labels.last]


def check_map(task: tuple[str, str, Labels]) -> tuple[str, str] | None:
    """What is wrong with a map.

    Args:
        task: The image, its map, and what the values stand for.

    Returns:
        The kind of fault, as :class:`MapError` has it, and details; None if nothing is, or image
        or map are missing or the image is what is wrong.
    """
    image, path, labels = task
    try:
        size = image_size(Path(image))
    except (ValueError, OSError, SyntaxError):
        return None
    if not os.path.exists(path):
        return None
    try:
        values = beyond(read_values(Path(path), Path(image), size), labels)
    except MapError as error:
        return error.kind, error.details
    return ('values', ', '.join(map(str, values[:3]))) if values else None


def list_images(folder: str, suffix: str, listed: str | None) -> tuple[list[Finding], list[str]]:
    """The images that mmsegmentation finds.

    Args:
        folder: The folder of the images.
        suffix: How they end, capitals as they are.
        listed: A file that names them; None: all in the folder and the folders in it.

    Returns:
        What is wrong; and the images, without the suffix.

    Raises:
        OSError: If the folder or the file may not be read.
    """
    if listed:
        lines = read_lines(listed, 'write an image a line, without suffix')
        return ([lines], []) if isinstance(lines, Finding) else ([], [s.strip() for s in lines])
    names, tally = [], Tally()
    other = Kind(f'images do not end in {suffix}', 'skipped as mmsegmentation does', refused=False)
    for parent, _, files in os.walk(folder, onerror=raise_it):
        inside = os.path.relpath(parent, folder)
        for file in sorted(files):
            path = file if inside == '.' else os.path.join(inside, file)
            if file.endswith(suffix) and not file.startswith('.'):
                names.append(path.removesuffix(suffix))
            elif file.lower().endswith(IMAGE_SUFFIXES):
                tally.add(other, str, path)
    findings = list(tally.findings(folder))
    if not names:
        findings.append(
            Finding(
                folder,
                f'has no images that end in {suffix}',
                'rename them, or set img_suffix of the data sets',
            )
        )
    return findings, sorted(names)


def check_map_presence(folder: str, names: Iterable[str], images: str) -> list[Finding]:
    """Check that each image has its map.

    Args:
        folder: The folder of the maps.
        names: The maps.
        images: The folder of the images.

    Returns:
        At most one finding.

    Raises:
        PermissionError: If a folder may not be read.
    """
    kind = Kind(f'images have no map in {folder}', 'add these, or remove the images')
    return check_presence(folder, names, images, kind)


def sampled(pairs: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """Some of many images and their maps, from all over the list."""
    return spread(pairs, _SAMPLE)


def summed_up(
    faults: Iterable[tuple[str, tuple[str, str] | None]], folder: str, labels: Labels
) -> list[Finding]:
    """Findings of what single maps have.

    Args:
        faults: The name of each map, and what is wrong with it.
        folder: The folder of the maps.
        labels: What values stand for.

    Returns:
        A finding for each kind.
    """
    first = 1 if labels.from_one else 0
    ignored = f'{"0 and " if labels.from_one else ""}{IGNORED}'
    kinds = dict(
        _KINDS,
        values=Kind(
            f'maps have values beyond the {labels.known or labels.count} classes',
            f'classes are {first} to {labels.last}, and {ignored} are ignored: fix the maps, or '
            'the classes of the config',
        ),
    )
    tally = Tally()
    for name, fault in faults:
        if fault is not None:
            kind, details = fault
            tally.add(
                kinds[kind],
                with_details,
                name,
                details,
            )
    return list(tally.findings(folder))
