"""Folders of classes for classification."""

from __future__ import annotations

from pathlib import Path

from ..checking.folders import SUFFIXES, class_folders
from .common import (
    OwnData,
    Split,
    first_ones,
    image_files,
    make_palette,
    split_folders,
    with_validation,
)

_OF_OTHER_LAYOUTS = {'images', 'labels', 'masks', 'annotations'}


def read_folders(folder: Path, work_dir: Path, training: bool) -> OwnData | None:
    """Read ``train/CLASS/*.jpg``, ``val/CLASS/*.jpg`` and perhaps ``test/CLASS/*.jpg``.

    Args:
        folder: The data set.
        work_dir: Not used, as nothing is converted.
        training: Whether there has to be something to train on.

    Returns:
        The data set, or None if it has another layout.

    Raises:
        FileNotFoundError: If a split is missing.
        ValueError: If the splits have different classes, or a class has no images.
    """
    folders = split_folders(folder)
    if not any(set(class_folders(path)) - _OF_OTHER_LAYOUTS for path in folders.values()):
        return None
    folders, note = with_validation(folders, folder, '{}/CLASS/*.jpg'.format, training)
    first = next(iter(folders.values()))
    classes = class_folders(first)
    if len(classes) < 2:
        raise ValueError(f'{first} has {len(classes)} folders of classes: at least 2 are needed')
    splits = {}
    for split, path in folders.items():
        found = class_folders(path)
        hidden = [name for name in found if name.startswith('.')]
        if hidden:
            raise ValueError(
                f'{path} has the folder {hidden[0]}, which mmpretrain takes for a class: remove it'
            )
        if found != classes:
            odd = [name for name in classes if name not in found]
            odd += [name for name in found if name not in classes]
            raise ValueError(
                f'{first} and {path} must have folders of the same classes; only one of them has '
                f'{first_ones(odd)}: add the folder to the other, or remove it'
            )
        counts = {name: len(image_files(path / name, SUFFIXES)) for name in found}
        empty = [name for name, count in counts.items() if not count]
        if not sum(counts.values()) or (split == 'train' and empty):
            raise ValueError(
                f'{path} has no images of {first_ones(empty)}: add some ({", ".join(SUFFIXES)})'
            )
        splits[split] = Split(path, None, sum(counts.values()))
    return OwnData(
        folder=folder,
        layout=f'folders of classes ({first.name}/*/){note}',
        task='classification',
        classes=tuple(classes),
        palette=make_palette(len(classes)),
        splits=splits,
        masks=False,
    )
