"""Images and masks for semantic segmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..checking.images import spread
from ..checking.maps import IGNORED, Labels, MapError, beyond, read_values
from ..exif import image_size
from .common import (
    OwnData,
    Split,
    check_classes,
    first_ones,
    image_files,
    make_palette,
    read_text,
    split_folders,
    with_validation,
)

_SAMPLE = 200  # masks of a split that are decoded


def read_maps(folder: Path, work_dir: Path, training: bool) -> OwnData | None:
    """Read ``images/{train,val,test}``, ``masks/{train,val,test}`` and ``classes.txt``.

    A mask is a PNG of the same name, each pixel the number of a line of ``classes.txt``, from 0,
    or 255, which is ignored. Every image needs its mask. Of a split of up to 200 images all masks
    are checked (size, kind, values), of a larger one every n-th, at most 200.

    Args:
        folder: The data set.
        work_dir: Not used, as nothing is converted.
        training: Whether there has to be something to train on.

    Returns:
        The data set, or None if it has another layout.

    Raises:
        FileNotFoundError: If a split, masks or ``classes.txt`` are missing.
        ValueError: If a file is wrong.
    """
    folders = split_folders(folder / 'images')
    if not folders or not (folder / 'masks').is_dir():
        return None
    folders, note = with_validation(folders, folder, 'images/{}/'.format, training)
    classes = _read_classes(folder / 'classes.txt')
    splits = {}
    for split, images in folders.items():
        masks = folder / 'masks' / images.name
        count, short_side = _check(split, images, masks, classes)
        splits[split] = Split(images, masks, count, short_side=short_side)
    return OwnData(
        folder=folder,
        layout=f'images and masks (classes.txt){note}',
        task='segmentation',
        classes=classes,
        palette=make_palette(len(classes)),
        splits=splits,
        masks=False,
    )


def _read_classes(path: Path) -> tuple[str, ...]:
    """The classes, one a line.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there are none, or more than a mask can hold.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f'there is no {path}: write it, a class a line, the one of the pixels of value 0 first'
        )
    names = [line.strip() for line in read_text(path).rstrip().splitlines()]
    if not 2 <= len(names) <= IGNORED:
        raise ValueError(f'{path} must have 2 to {IGNORED} classes, a line each; has {len(names)}')
    return check_classes(names, path)


def _check(split: str, images: Path, masks: Path, classes: tuple[str, ...]) -> tuple[int, int]:
    """Check the masks of a split; return how many images it has, and their median short side.

    Raises:
        FileNotFoundError: If masks are missing.
        ValueError: If a mask is wrong, or there are no images.
    """
    paths = image_files(images)
    if not paths:
        raise ValueError(f'{images} has no images: add some, or remove the folder')
    pairs = [(path, (masks / path.relative_to(images)).with_suffix('.png')) for path in paths]
    missing = [mask.relative_to(masks) for _, mask in pairs if not mask.is_file()]
    if missing:
        raise FileNotFoundError(
            f'{masks} lacks the masks of {len(missing)} images ({first_ones(missing)}): add them, '
            f'or remove the images from {images}'
        )
    seen, short_sides = np.zeros(256, bool), []
    for path, mask in spread(pairs, _SAMPLE):
        size = image_size(path)
        short_sides.append(min(size))
        seen |= _values(path, size, mask, classes)
    if split == 'train' and seen[:IGNORED].sum() < 2:
        only = ' and '.join(str(value) for value in np.flatnonzero(seen))
        raise ValueError(
            f'the masks in {masks} hold nothing but {only}, so there is nothing to learn: write '
            f'the number of a class, 0 to {len(classes) - 1}, into each pixel (255 is ignored)'
        )
    return len(paths), int(np.median(short_sides))


def _values(image: Path, size: tuple[int, int], mask: Path, classes: tuple[str, ...]) -> np.ndarray:
    """Which of 256 values a mask holds, once it is checked.

    Raises:
        ValueError: If kind, size or values of the mask are wrong.
    """
    try:
        seen = read_values(mask, image, size)
    except MapError as error:
        raise ValueError(str(error)) from None
    wrong = beyond(seen, Labels(len(classes)))
    if wrong:
        raise ValueError(
            f'{mask} holds the value {wrong[0]}, but the {len(classes)} classes of classes.txt '
            f'are 0 to {len(classes) - 1}, and 255 is ignored: fix the mask or add the class'
        )
    return seen
