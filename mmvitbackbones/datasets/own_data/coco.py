"""Annotations in COCO's format."""

from __future__ import annotations

import codecs
import json
import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checking.annotations import can_be_drawn, has_size, is_box
from ..exif import image_size
from .common import (
    SPLIT_NAMES,
    OwnData,
    Split,
    check_classes,
    first_ones,
    make_palette,
    note_on_empty,
    split_folders,
    with_validation,
    write_json,
)

_EXPORT = '_annotations.coco.json'
_FIELDS = dict(
    images={'id', 'file_name'}, annotations={'image_id', 'category_id'}, categories={'id', 'name'}
)


@dataclass
class _File:
    """What is kept of a JSON file.

    Attributes:
        path: The file.
        images: The folder of its images.
        count: Number of images.
        empty: How many of them have no objects.
        annotations: Number of annotations.
        categories: Id and name of each category, in the order of the file.
        used: Ids of categories that annotations have.
        masks: Whether every annotation that is not a crowd has a mask.
        readable: Whether mmdetection and pycocotools read it rightly, categories aside.
        renamed: Names of images that the disk has in another Unicode form.
    """

    path: Path
    images: Path
    count: int
    empty: int
    annotations: int
    categories: list[tuple[int, str]]
    used: set[int]
    masks: bool
    readable: bool
    renamed: dict[str, str]

    @property
    def names(self) -> dict[int, str]:
        return {number: str(name) for number, name in self.categories}

    @property
    def used_names(self) -> list[str]:
        return [name for number, name in sorted(self.names.items()) if number in self.used]


def read_coco(folder: Path, work_dir: Path, training: bool) -> OwnData | None:
    """Read COCO's own layout: ``annotations/instances_train2017.json`` and ``train2017/``.

    Args:
        folder: The data set.
        work_dir: Where annotations are written that the toolboxes would misread.
        training: Whether there has to be something to train on.

    Returns:
        The data set, or None if it has another layout.

    Raises:
        FileNotFoundError: If a split or its images are missing.
        ValueError: If a file is wrong.
    """
    annotations = folder / 'annotations'
    if not any(annotations.glob('instances_*.json')):
        return None
    paths = {}
    for split in SPLIT_NAMES:
        found = sorted(annotations.glob(f'instances_{split}*.json'))
        if len(found) > 1:
            names = ', '.join(path.name for path in found)
            raise ValueError(f'{annotations} has {names}: keep one for {split}')
        if found:
            paths[split] = found[0]
    where = 'annotations/instances_{}*.json'.format
    paths, note = with_validation(paths, folder, where, training)
    layout = f'COCO ({next(iter(paths.values())).relative_to(folder)})'
    return _read(folder, work_dir, layout + note, paths, _coco_image_folders)


def read_coco_export(folder: Path, work_dir: Path, training: bool) -> OwnData | None:
    """Read the common COCO export: ``train/_annotations.coco.json`` with the images beside it.

    Args:
        folder: The data set.
        work_dir: Where annotations are written that the toolboxes would misread.
        training: Whether there has to be something to train on.

    Returns:
        The data set, or None if it has another layout.

    Raises:
        FileNotFoundError: If a split or its images are missing.
        ValueError: If a file is wrong.
    """
    folders = split_folders(folder, _EXPORT)
    if not folders:
        return None
    found = {split: path / _EXPORT for split, path in folders.items()}
    paths, note = with_validation(found, folder, f'{{}}/{_EXPORT}'.format, training)
    layout = f'COCO export ({next(iter(paths.values())).relative_to(folder)})'
    return _read(folder, work_dir, layout + note, paths, lambda path: [path.parent])


def _read(
    folder: Path,
    work_dir: Path,
    layout: str,
    paths: dict[str, Path],
    image_folders: Callable[[Path], list[Path]],
) -> OwnData:
    files = {}
    for split, path in paths.items():
        file = _read_file(path, image_folders(path))
        note = note_on_empty(split, path, file.count, file.annotations)
        layout += note
        if not note:
            files[split] = file
    used = {name for file in files.values() for name in file.used_names}
    ids: dict[str, int] = {}
    for file in files.values():
        for number, name in file.names.items():
            ids.setdefault(name, number)  # those of the training file, if it has them
    # Some exports have a category over all others, which no annotation uses: no class.
    classes = check_classes(
        [name for name in sorted(ids, key=ids.__getitem__) if name in used], folder
    )
    splits = {}
    for split, file in files.items():
        path = file.path
        # mmdetection numbers the classes as the file orders its categories, those of equal name
        # apart.
        if not file.readable or [n for _, n in file.categories if n in classes] != list(classes):
            path = work_dir / 'data' / f'instances_{split}.json'
            write_json(path, _rewritten(file, classes))
        splits[split] = Split(file.images, path, file.count, file.empty)
    return OwnData(
        folder=folder,
        layout=layout,
        task='detection',
        classes=classes,
        palette=make_palette(len(classes)),
        splits=splits,
        masks=all(file.masks for file in files.values()),
    )


def _read_file(path: Path, folders: list[Path]) -> _File:
    """Read and check a file.

    Raises:
        FileNotFoundError: If images are missing.
        ValueError: If it is no COCO file, or something in it is wrong.
    """
    content, marked = _load(path, _keep_whether_masked)
    images, annotations = content['images'], content['annotations']
    categories = [(category['id'], category['name']) for category in content['categories']]
    files = {image['id']: image['file_name'] for image in images}
    if len(files) < len(images):
        raise ValueError(
            f'{path}: {len(images) - len(files)} images have the id of another image: give each '
            'its own'
        )
    folder, renamed = _find_images(path, folders, list(files.values())) if files else (path, {})
    used = _check_annotations(path, annotations, files, {number for number, _ in categories})
    file = _File(
        path=path,
        images=folder,
        count=len(images),
        empty=len(images) - len({annotation['image_id'] for annotation in annotations}),
        annotations=len(annotations),
        categories=categories,
        used=used,
        masks=all(each.get('segmentation') for each in annotations if not each.get('iscrowd')),
        readable=not (marked or renamed)
        and all(has_size(image) for image in images)
        and all(_is_whole(annotation) for annotation in annotations)
        and len({annotation['id'] for annotation in annotations}) == len(annotations),
        renamed=renamed,
    )
    if len(file.names) < len(categories):
        raise ValueError(f'{path}: two categories have the same id: give each its own')
    check_classes(file.used_names, path)
    return file


def _load(
    path: Path, hook: Callable[[dict[str, Any]], dict[str, Any]] | None = None
) -> tuple[dict[str, Any], bool]:
    """Load a file; also, whether a byte-order mark is in front, which pycocotools cannot read.

    Raises:
        ValueError: If it is no COCO file.
    """
    raw = path.read_bytes()
    try:
        content = json.loads(raw.decode('utf-8-sig'), object_hook=hook)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is no COCO file, as it is no JSON ({error})') from None
    for key, fields in _FIELDS.items():
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and row.keys() >= fields for row in rows
        ):
            raise ValueError(
                f'{path} is no COCO file: it needs a list {key!r}, each with '
                f'{" and ".join(sorted(fields))}'
            )
    if not all(isinstance(category['id'], int) for category in content['categories']):
        raise ValueError(f'{path} is no COCO file: the ids of its categories must be integers')
    return content, raw.startswith(codecs.BOM_UTF8)


def _keep_whether_masked(part: dict[str, Any]) -> dict[str, Any]:
    """Keep of a mask whether there is one, as masks are most of a file: COCO's has 450 MB."""
    if 'segmentation' in part:
        part['segmentation'] = can_be_drawn(part['segmentation'])
    return part


def _is_whole(annotation: dict[str, Any]) -> bool:
    """Whether it has all that mmdetection and pycocotools rely on.

    The evaluation takes an id of 0 for "none"; mmdetection skips objects without an area, and
    asks for the masks of crowds, too.
    """
    area, crowd = annotation.get('area'), annotation.get('iscrowd')
    return bool(
        annotation.get('id')
        and isinstance(area, (int, float))
        and area > 0
        and crowd in (0, 1)
        and (not crowd or annotation.get('segmentation'))
    )


def _coco_image_folders(path: Path) -> list[Path]:
    """Where the images of COCO's ``annotations/instances_train2017.json`` may be."""
    folder, name = path.parent.parent, path.stem.removeprefix('instances_')
    split = next(split for split in SPLIT_NAMES if name.startswith(split))
    roots = [folder, folder / 'images']
    alike = [found for root in roots for found in sorted(root.glob(f'{split}*'))]
    there = [path for path in (folder / name, folder / 'images' / name, *alike) if path.is_dir()]
    return [*(there or [folder / name]), folder / 'images', folder]


def _find_images(path: Path, folders: list[Path], names: list[str]) -> tuple[Path, dict[str, str]]:
    """The folder that holds the images of a file; and those that are named differently there.

    Raises:
        FileNotFoundError: If images are missing.
    """
    holding = [f for f in folders if any((f / name).is_file() for name in names[:100])]
    folder = (holding or folders)[0]
    present = set(os.listdir(folder)) if folder.is_dir() else set()
    absent = [n for n in names if n not in present and not (folder / n).is_file()]
    # Archives made on a Mac hold an umlaut as a letter and its dots.
    alike = {unicodedata.normalize('NFC', name): name for name in present} if absent else {}
    renamed = {name: alike.get(unicodedata.normalize('NFC', name), '') for name in absent}
    missing = [name for name, other in renamed.items() if not other]
    if missing:
        raise FileNotFoundError(
            f'{path} names {len(missing)} images that are not in {folder} ({first_ones(missing)}): '
            'put them there, or remove them from the file'
        )
    return folder, renamed


def _check_annotations(
    path: Path, annotations: list[dict[str, Any]], files: dict[Any, str], categories: set[int]
) -> set[int]:
    """Check what annotations refer to, and their boxes; return the categories that they use.

    Raises:
        ValueError: Says how many are wrong, and names the first.
    """
    used = set()
    wrong: dict[str, list[dict[str, Any]]] = {
        'belong to images that are not in its list of images': [],
        'belong to categories that are not in its list of categories': [],
        'have no bbox [x, y, width, height]': [],
        'have a box without width or height': [],
    }
    no_image, no_category, no_box, no_size = wrong.values()
    for annotation in annotations:
        box: Any = annotation.get('bbox')
        if annotation['image_id'] not in files:
            no_image.append(annotation)
        elif annotation['category_id'] not in categories:
            no_category.append(annotation)
        elif not is_box(box):
            no_box.append(annotation)
        elif not (box[2] > 0 and box[3] > 0):
            no_size.append(annotation)
        else:
            used.add(annotation['category_id'])
    for what, found in wrong.items():
        if found:
            first = found[0]
            where = files.get(first['image_id'], f'image {first["image_id"]}')
            raise ValueError(
                f'{path}: {len(found)} annotations {what} (the first: id {first.get("id")}, '
                f'{where}): remove or fix them'
            )
    return used


def _rewritten(file: _File, classes: tuple[str, ...]) -> dict[str, Any]:
    """The content of a file as mmdetection and pycocotools need it.

    It is read once more: the masks of all files together would take too much memory.
    """
    content, _ = _load(file.path)
    names = file.names
    for image in content['images']:
        name = image['file_name'] = file.renamed.get(image['file_name'], image['file_name'])
        if not has_size(image):
            image['width'], image['height'] = image_size(file.images / name)
    for number, annotation in enumerate(content['annotations'], 1):
        left, top, width, height = annotation['bbox']
        area = annotation.get('area')
        annotation.update(
            id=number,
            category_id=classes.index(names[annotation['category_id']]) + 1,
            iscrowd=int(bool(annotation.get('iscrowd'))),
            area=area if isinstance(area, (int, float)) and area > 0 else width * height,
        )
        if annotation['iscrowd'] and not can_be_drawn(annotation.get('segmentation')):
            right, bottom = left + width, top + height
            outline = [left, top, right, top, right, bottom, left, bottom]
            annotation['segmentation'] = [outline]
    content['categories'] = [dict(id=number, name=name) for number, name in enumerate(classes, 1)]
    return content
