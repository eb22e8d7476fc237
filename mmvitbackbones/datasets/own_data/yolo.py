"""YOLO's text labels."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..exif import image_size
from .common import (
    SPLIT_NAMES,
    OwnData,
    Split,
    check_classes,
    first_ones,
    image_files,
    make_palette,
    note_on_empty,
    read_text,
    with_validation,
    write_json,
)

_FAR_OUTSIDE = 1  # in sizes of the image: who counts in pixels is farther off


@dataclass
class _Images:
    """The images of a split, and the folder that they are in."""

    folder: Path
    paths: list[Path]


def read_yolo(folder: Path, work_dir: Path, training: bool) -> OwnData | None:
    """Read images with text labels, as ``data.yaml`` says where; convert them to COCO's format.

    The labels of ``.../images/a.jpg`` are ``.../labels/a.txt``, or beside the image where there
    is no such folder. An image without labels, or with an empty file of them, has no objects.

    Args:
        folder: The data set.
        work_dir: Where ``data/instances_{split}.json`` is written, each time anew.
        training: Whether there has to be something to train on.

    Returns:
        The data set, or None if it has another layout.

    Raises:
        FileNotFoundError: If a split or images are missing.
        ValueError: If a file is wrong.
    """
    found = _find_settings(folder)
    if found is None:
        return None
    file, settings = found
    classes = _classes(file, settings)
    images, absent = {}, {}
    for split in SPLIT_NAMES:
        entries = _entries(file, settings, split)
        places = [_find(entry, folder, _bases(folder, settings)) for entry in entries]
        missing = [entry for entry, place in zip(entries, places) if place is None]
        if entries and not missing:
            there = [place for place in places if place is not None]
            images[split] = _list_images(file, there, folder, _bases(folder, settings))
        elif missing:
            absent[split] = f'folder {first_ones(missing)}, which {file.name} names as {split}'
    images, layout = with_validation(
        images,
        folder,
        lambda split: absent.get(split, f'entry "{split}: FOLDER" in {file.name}'),
        training,
    )
    layout = f'YOLO labels ({file.name})' + layout
    splits, masks = {}, True
    for split, part in images.items():
        content = _convert(part, classes)
        annotations = content['annotations']
        count = len(part.paths)
        source = _label_folder(part.paths[0].parent)[1] if count else part.folder
        note = note_on_empty(split, source, count, len(annotations))
        layout += note
        if note:
            continue
        masks = masks and all('segmentation' in annotation for annotation in annotations)
        path = work_dir / 'data' / f'instances_{split}.json'
        write_json(path, content)
        splits[split] = Split(
            part.folder, path, count, count - len({a['image_id'] for a in annotations})
        )
    return OwnData(
        folder=folder,
        layout=layout,
        task='detection',
        classes=classes,
        palette=make_palette(len(classes)),
        splits=splits,
        masks=masks,
    )


def _find_settings(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The file that says where all is: ``data.yaml``, or the only one that does.

    Raises:
        ValueError: If several do.
    """
    paths = sorted([*folder.glob('*.yaml'), *folder.glob('*.yml')])
    usual = [path for path in paths if path.stem == 'data']
    found, splits = [], {name for names in SPLIT_NAMES.values() for name in names}
    for path in usual or paths:
        try:
            # All values stay text: a class may be called "no" or "1".
            settings = yaml.load(read_text(path), Loader=yaml.BaseLoader)
        except yaml.YAMLError as error:
            raise ValueError(f'{path} is no YAML ({error})') from None
        if isinstance(settings, dict) and not splits.isdisjoint(settings):
            found.append((path, settings))
    if usual and not found:
        raise ValueError(f'{usual[0]} has no entry "train: FOLDER"')
    if len(found) > 1:
        names = ', '.join(path.name for path, _ in found)
        raise ValueError(f'{folder} has {names}: keep the one that counts, as data.yaml')
    return found[0] if found else None


def _classes(file: Path, settings: dict[str, Any]) -> tuple[str, ...]:
    """The names of the classes.

    Raises:
        ValueError: If there are none, or fewer or more than ``nc`` says.
    """
    if 'kpt_shape' in settings:
        raise ValueError(f'{file} is about key points, which are not read: export boxes or masks')
    names = settings.get('names')
    if isinstance(names, dict):
        numbers = [str(number) for number in range(len(names))]
        if set(names) != set(numbers):
            raise ValueError(
                f'{file}: the numbers of the names must be 0 to {len(names) - 1}, got '
                f'{", ".join(names)}'
            )
        names = [names[number] for number in numbers]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise ValueError(f'{file} has no names of classes: add "names: [first, second]"')
    count = settings.get('nc', str(len(names)))
    if count != str(len(names)):
        raise ValueError(f'{file}: nc is {count}, but there are {len(names)} names')
    return check_classes(names, file)


def _entries(file: Path, settings: dict[str, Any], split: str) -> list[str]:
    """What the file says about a split; nothing if it does not.

    Raises:
        ValueError: If it says nothing that can be used.
    """
    found = [settings[name] for name in SPLIT_NAMES[split] if settings.get(name)]
    entries = found[0] if found and isinstance(found[0], list) else found[:1]
    if not all(isinstance(entry, str) for entry in entries):
        raise ValueError(f'{file}: {split} must be a folder, a list of folders or a .txt file')
    return entries


def _bases(folder: Path, settings: dict[str, Any]) -> list[Path]:
    """What paths may be relative to."""
    return [folder / str(settings.get('path') or ''), folder]


def _find(entry: str, folder: Path, bases: list[Path]) -> Path | None:
    """Where a file or folder is that was written down on another machine, perhaps."""
    entry = entry.replace('\\', '/')
    # Exports say "../train/images" for what lies beside data.yaml.
    inside = re.sub(r'^(\.\.?/)+', '', entry)
    places = [base / path for path in (inside, entry) for base in bases]
    if re.match(r'([A-Za-z]:)?/', entry):
        parts = Path(entry).parts
        places += [folder.joinpath(*parts[start:]) for start in range(1, len(parts) - 1)]
    return next((place for place in places if place.exists()), None)


def _list_images(file: Path, places: list[Path], folder: Path, bases: list[Path]) -> _Images:
    """The images in folders, or those that text files list.

    Raises:
        FileNotFoundError: If a text file names an image that is missing.
        ValueError: If an entry is another kind of file.
    """
    paths: dict[Path, None] = {}  # an image may be in two of them
    for place in places:
        if place.is_dir():
            paths.update((path, None) for path in image_files(place) if not _is_hidden(path, place))
            continue
        if place.suffix != '.txt':
            raise ValueError(f'{file} names {place}, which is neither a folder nor a .txt file')
        lines = [line.strip() for line in read_text(place).splitlines() if line.strip()]
        found = {line: _find(line, folder, [place.parent, *bases]) for line in lines}
        missing = [line for line, path in found.items() if path is None]
        if missing:
            raise FileNotFoundError(
                f'{place} names {len(missing)} images that are missing ({first_ones(missing)}): '
                f'put them into {folder}, or remove the lines'
            )
        paths.update((path, None) for path in found.values() if path is not None)
    if len(places) == 1 and places[0].is_dir():
        return _Images(places[0], list(paths))
    # File names are relative to one folder, above all of them.
    parents = {str(path.parent) for path in paths}
    return _Images(Path(os.path.commonpath(parents)) if parents else places[0], list(paths))


def _is_hidden(path: Path, folder: Path) -> bool:
    """Whether it lies in a hidden folder, such as an editor's, of a folder."""
    return any(part.startswith('.') for part in path.relative_to(folder).parts)


@functools.lru_cache(maxsize=64)
def _label_folder(images: Path) -> tuple[Path, Path]:
    """Where the labels of a folder of images are, and where they should be."""
    parts = list(images.parts)
    if 'images' not in parts:
        return images, images
    parts[len(parts) - 1 - parts[::-1].index('images')] = 'labels'
    labels = Path(*parts)
    return labels if labels.is_dir() else images, labels


def _convert(images: _Images, classes: tuple[str, ...]) -> dict[str, Any]:
    """The images and labels of a split, as COCO has them.

    Raises:
        ValueError: If a label is wrong.
    """
    _label_folder.cache_clear()  # folders may have come since
    rows: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    empty: list[str] = []
    for image_id, path in enumerate(images.paths, 1):
        width, height = image_size(path)
        name = path.relative_to(images.folder).as_posix()
        rows.append(dict(id=image_id, file_name=name, width=width, height=height))
        labels = _label_folder(path.parent)[0] / f'{path.stem}.txt'
        for place, label, numbers in _read_labels(labels, len(classes)):
            shape = _shape(numbers, width, height)
            if not all(side > 0 for side in shape['bbox'][2:]):
                empty.append(place)
            annotations.append(
                dict(
                    shape,
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=label + 1,
                    iscrowd=0,
                )
            )
    if empty:
        raise ValueError(
            f'{len(empty)} boxes have no width or no height inside their image (the first: '
            f'{empty[0]}): remove or fix them'
        )
    categories = [dict(id=number, name=name) for number, name in enumerate(classes, 1)]
    return dict(images=rows, annotations=annotations, categories=categories)


def _read_labels(path: Path, classes: int) -> Iterator[tuple[str, int, list[float]]]:
    """Place, class and numbers of each line of a file; nothing if there is none.

    Raises:
        ValueError: Names the line that is wrong.
    """
    if not path.is_file():
        return
    for row, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        place = f'{path}, line {row}'
        try:
            label, *numbers = map(float, line.split())
        except ValueError:
            label, numbers = -1.0, []
        count = len(numbers)
        if not (count == 4 or (count >= 6 and count % 2 == 0)):
            raise ValueError(
                f'{place}: expected "class x y width height" or "class x1 y1 x2 y2 x3 y3 ...", '
                f'got {_shortened(line)!r}'
            )
        if not 0 <= label < classes or label != int(label):
            raise ValueError(
                f'{place}: class {line.split()[0]} is none of 0 to {classes - 1}, which data.yaml '
                'names'
            )
        if not all(-_FAR_OUTSIDE <= number <= 1 + _FAR_OUTSIDE for number in numbers):
            raise ValueError(
                f'{place}: places and sizes must be parts of the width and height of the image, '
                f'from 0 to 1, got {_shortened(line)!r}'
            )
        yield place, int(label), numbers


def _shape(numbers: list[float], width: int, height: int) -> dict[str, Any]:
    """Box, area and, if it is one, polygon of a label, in pixels, clipped to the image."""
    size = np.array([width, height])
    if len(numbers) == 4:
        middle, sides = np.array(numbers[:2]), np.array(numbers[2:])
        points = np.stack([middle - sides / 2, middle + sides / 2])
    else:
        points = np.array(numbers).reshape(-1, 2)
    points = np.clip(points * size, 0, size).round(3)
    if len(numbers) == 4:
        (left, top), (right, bottom) = points.tolist()
    else:
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    box = [left, top, round(right - left, 3), round(bottom - top, 3)]
    shape: dict[str, Any] = dict(bbox=box, area=box[2] * box[3])
    if len(numbers) > 4:
        x, y = points.T
        area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
        # mmdetection skips objects without an area.
        shape.update(segmentation=[points.ravel().tolist()], area=area or shape['area'])
    return shape


def _shortened(line: str) -> str:
    return line if len(line) <= 60 else f'{line[:57]}...'
