"""Folders of classes and lists of labels, as mmpretrain reads them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .findings import Finding, Kind, Tally, raise_it
from .lists import read_lines

# Those that mmpretrain's CustomDataset takes unless it is told others.
SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')

_LINE = Kind(
    'lines are not "FILE LABEL"', 'write the image and the number of its class, a line each'
)


def class_folders(folder: str | Path) -> list[str]:
    """The folders of classes in a folder, in the order that mmpretrain numbers them."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def check_folders(
    folder: str, classes: Sequence[str] | None, suffixes: Sequence[str] = SUFFIXES
) -> tuple[list[Finding], list[str]]:
    """Check folders of classes.

    Args:
        folder: The folder that they are in.
        classes: The classes of the config; None: the folders are the classes.
        suffixes: The endings of files that are read.

    Returns:
        What is wrong; and the images, relative to the folder.

    Raises:
        OSError: If a folder may not be read.
    """
    findings, names, tally = [], class_folders(folder), Tally()
    if classes is not None and len(classes) != len(names):
        findings.append(
            Finding(
                folder,
                f'holds {len(names)} folders of classes, the config has {len(classes)} classes',
                'mmpretrain needs a folder for each, and sorts them as the classes',
            )
        )
    endings = ', '.join(suffixes)
    empty = Kind(
        'classes have no images', f'never an image, as in mmpretrain ({endings})', refused=False
    )
    other = Kind(f'files are none of {endings}', 'skipped as mmpretrain does', refused=False)
    images: list[str] = []
    for name in names:
        before = len(images)
        for parent, _, files in os.walk(os.path.join(folder, name), onerror=raise_it):
            inside = os.path.relpath(parent, folder)
            for file in sorted(files):
                path = os.path.normpath(os.path.join(inside, file))
                if file.startswith('.'):
                    continue
                if file.lower().endswith(tuple(suffixes)):
                    images.append(path)
                else:
                    tally.add(other, str, path)
        if len(images) == before:
            tally.add(empty, str, name)
    if not images:
        findings.append(
            Finding(folder, f'has no images in folders of classes ({endings})', 'add some')
        )
    return [*findings, *tally.findings(folder)], images


def check_same_folders(first: str, second: str) -> list[Finding]:
    """Check that two folders hold the same classes: labels are the numbers of their folders.

    Args:
        first: The folder of the training images.
        second: That of others.

    Returns:
        At most one finding.
    """
    ours, theirs = set(class_folders(first)), set(class_folders(second))
    odd = sorted(ours ^ theirs)
    if not odd:
        return []
    problem = f'has other folders of classes than {first}, only one of them has'
    advice = 'labels are the numbers of the sorted folders, so both need the same'
    return [Finding(second, problem, advice, first=tuple(odd[:3]), count=len(odd))]


def check_list(path: str, count: int | None) -> tuple[list[Finding], list[str]]:
    """Check a list of images and labels.

    Args:
        path: The file.
        count: The number of classes; None: not known.

    Returns:
        What is wrong; and the images that it names.

    Raises:
        OSError: If it may not be read.
    """
    lines = read_lines(path, _LINE.consequence)
    if isinstance(lines, Finding):
        return [lines], []
    tally, images = Tally(), []
    beyond = Kind(f'labels are none of 0 to {(count or 0) - 1}', 'fix them, or num_classes')
    for number, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(' ')
        if not name or not label.lstrip('-').isdigit():
            tally.add(_LINE, 'line {}: {!r}'.format, number, line[:40])
            continue
        images.append(name)
        if count is not None and not 0 <= int(label) < count:
            tally.add(beyond, 'line {}: {}'.format, number, label)
    return list(tally.findings(path)), images
