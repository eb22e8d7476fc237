"""Whether images are there, and can be decoded."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import mmcv
from PIL import Image

from ..exif import image_size
from .findings import Finding, Kind, Tally

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif', '.tiff', '.webp')
_SAMPLE = 200  # images whose heads are read where not all are decoded
_ENDS = (b'\xff\xd9', b'IEND\xaeB`\x82')  # of a whole JPEG, and a whole PNG

_EMPTY = Kind('images are empty files', 'replace or remove them')
_UNREADABLE = Kind('images cannot be read', 'replace or remove them')
_FORBIDDEN = Kind('images may not be read', 'change their permissions (chmod +r)')
_CUT = Kind('images are cut short', 'replace or remove them')
_OTHER_SIZE = Kind(
    'images have another size than their file',
    'write width and height of the file, turned as its EXIF says, and see that the boxes fit',
)
_KINDS = dict(empty=_EMPTY, unreadable=_UNREADABLE, forbidden=_FORBIDDEN, cut=_CUT)

_Item = TypeVar('_Item')
Fault = tuple[str, str]  # a kind in _KINDS or 'size', and details


def check_presence(
    folder: str, names: Iterable[str], source: str, kind: Kind | None = None
) -> list[Finding]:
    """Check that files are there, by the lists of the folders that they are in.

    Args:
        folder: The folder that the names are relative to.
        names: The files.
        source: What names them.
        kind: What is said about those that are not; None: that they are images.

    Returns:
        At most one finding.

    Raises:
        PermissionError: If a folder may not be read.
    """
    tally, listed = Tally(), dict[str, set[str]]()
    kind = kind or Kind(
        f'images are not in {folder}', 'put them there, or remove them from the file'
    )
    for name in names:
        inside, _, base = name.rpartition('/')
        if inside not in listed:
            try:
                listed[inside] = set(os.listdir(os.path.join(folder, inside)))
            except (FileNotFoundError, NotADirectoryError):
                listed[inside] = set()
        if base not in listed[inside]:
            tally.add(kind, str, name)
    return list(tally.findings(source))


def check_sample(
    folder: str, sizes: Mapping[str, tuple[int, int] | None], source: str
) -> list[Finding]:
    """Read the heads of some images, without decoding them.

    Args:
        folder: The folder that names are relative to.
        sizes: Width and height that each image should have; None where nothing says it.
        source: What names them.

    Returns:
        What is wrong with them.
    """
    some = spread(list(sizes), _SAMPLE)
    return summed_up(
        ((name, look_at_head(os.path.join(folder, name), sizes[name])) for name in some), source
    )


def spread(items: Sequence[_Item], most: int) -> Sequence[_Item]:
    """Some of many, from all over the list.

    Args:
        items: All of them.
        most: How many, at most.

    Returns:
        Every n-th, or all where there are no more than ``most``.
    """
    return items[:: max(1, -(-len(items) // most))]


def summed_up(faults: Iterable[tuple[str, Fault | None]], source: str) -> list[Finding]:
    """Findings of what single images have.

    Args:
        faults: The name of each image, and what is wrong with it.
        source: What names them.

    Returns:
        A finding for each kind.
    """
    tally = Tally()
    for name, fault in faults:
        if fault is not None:
            kind, details = fault
            tally.add(
                _KINDS.get(kind, _OTHER_SIZE),
                with_details,
                name,
                details,
            )
    return list(tally.findings(source))


def look_at_head(path: str, size: tuple[int, int] | None = None) -> Fault | None:
    """What is wrong with an image as far as its head says.

    Args:
        path: The image.
        size: Width and height that it should have.

    Returns:
        The kind of fault, and details; None if it is missing or nothing is wrong.
    """
    try:
        if not os.path.getsize(path):
            return 'empty', ''
        found = image_size(Path(path))
    except FileNotFoundError:
        return None  # check_presence tells
    except PermissionError:
        return 'forbidden', ''
    except (ValueError, SyntaxError, OSError) as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, PermissionError):
            return 'forbidden', ''
        return 'unreadable', ''
    return _compare(found, size)


def decode(task: tuple[str, tuple[int, int] | None]) -> Fault | None:
    """What is wrong with an image, decoded as the toolboxes do.

    Args:
        task: The image, and width and height that it should have.

    Returns:
        The kind of fault, and details; None if it is missing or nothing is wrong.
    """
    path, size = task
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        return None
    except PermissionError:
        return 'forbidden', ''
    except OSError as error:
        return 'unreadable', error.strerror or ''
    if not raw:
        return 'empty', ''
    # Some versions of OpenCV fill what is missing of a JPEG with grey, without a word.
    if not raw[-64:].rstrip(b'\0\r\n ').endswith(_ENDS) and _is_cut(raw):
        return 'cut', ''
    try:
        image = mmcv.imfrombytes(raw, flag='color')
    except (cv2.error, ValueError, OSError, MemoryError):
        image = None
    if image is None:
        return 'unreadable', ''
    height, width = image.shape[:2]
    return _compare((width, height), size)


def with_details(name: str, details: str) -> str:
    """A name, and what is to be said about it, if anything is."""
    return f'{name}: {details}' if details else name


def _is_cut(raw: bytes) -> bool:
    """Whether an image starts well and ends too early."""
    try:
        with Image.open(io.BytesIO(raw)) as image:
            try:
                image.load()
            except (OSError, SyntaxError, ValueError):
                return True
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
    return False


def _compare(found: tuple[int, int], size: tuple[int, int] | None) -> Fault | None:
    if size is None or size == found:
        return None
    return 'size', f'{size[0]} x {size[1]}, the file {found[0]} x {found[1]}'
