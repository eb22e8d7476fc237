"""A user's data set, whose layout is recognised by what is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .coco import read_coco, read_coco_export
from .common import OwnData, Split, first_ones
from .folders import read_folders
from .maps import read_maps
from .yolo import read_yolo

__all__ = ['OwnData', 'Split', 'read_own_data']

_READERS: tuple[Callable[[Path, Path, bool], OwnData | None], ...] = (
    read_coco,
    read_coco_export,
    read_yolo,
    read_maps,
    read_folders,
)
_LAYOUTS = """\
1. COCO's own, boxes and masks of objects:
     annotations/instances_train.json   train/*.jpg
     annotations/instances_val.json     val/*.jpg
2. COCO export:
     train/_annotations.coco.json       train/*.jpg
     valid/_annotations.coco.json       valid/*.jpg
3. YOLO labels, boxes or polygons (data.yaml: names, train: train/images, val: valid/images):
     data.yaml
     train/images/*.jpg                 train/labels/*.txt
     valid/images/*.jpg                 valid/labels/*.txt
4. Masks for semantic segmentation (PNG with the number of a class in each pixel):
     classes.txt, a class a line
     images/train/*.jpg                 masks/train/*.png
     images/val/*.jpg                   masks/val/*.png
5. Folders of classes for classification:
     train/CLASS/*.jpg
     val/CLASS/*.jpg"""


def read_own_data(folder: str | Path, work_dir: str | Path, training: bool = True) -> OwnData:
    """Read what a user's data set consists of.

    The layout is one of COCO's own, the common COCO export, YOLO's text labels, images and masks,
    folders of classes. COCO JSON that the toolboxes read is used as it is; what they would
    misread, and YOLO's labels, are written anew to ``work_dir/data/instances_{split}.json`` with
    each call. Nothing is written into ``folder``.

    Args:
        folder: The data set.
        work_dir: Where to write converted annotations.
        training: Whether there has to be something to train on; a test does without.

    Returns:
        The data set; its paths are absolute.

    Raises:
        FileNotFoundError: If the folder, a split or files of it are missing, or no layout is
            recognised.
        ValueError: If a file of it is wrong.
    """
    # Not resolved: labels are found by the names of folders, which links may change.
    root = Path(os.path.abspath(Path(folder).expanduser()))
    if root.is_file():
        raise FileNotFoundError(f'{root} is a file: give the folder of the data set, unpacked')
    if not root.is_dir():
        raise FileNotFoundError(f'there is no folder {root}')
    for read in _READERS:
        data = read(root, Path(os.path.abspath(work_dir)), training)
        if data is not None:
            return data
    seen = sorted(
        f'{path.name}/ ({first_ones(sorted(each.name for each in path.iterdir()))})'
        if path.is_dir()
        else path.name
        for path in root.iterdir()
    )
    shown = ', '.join(seen[:12]) + (', ...' if len(seen) > 12 else '')
    raise FileNotFoundError(
        f'{root} is in no layout that is known. It holds: {shown or "nothing"}.\n'
        f'Bring it into one of these:\n{_LAYOUTS}'
    )
