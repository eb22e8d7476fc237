"""Small data sets in the layouts of users: coloured shapes on noise, so that something is learnt.

Images have odd and different sizes, their names spaces and umlauts. The first training image is
without objects. In COCO's layouts the second image of each split has a crowd.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mmvitbackbones.datasets.digit_scenes import write_image

SIZES = [(97, 130), (64, 80), (101, 75)]  # height, width
CLASSES = ('Straßenbahn', 'traffic light', 'dog')
SEMANTIC_CLASSES = ('background', *CLASSES)
FOLDERS = ('Fußball', 'dog', 'kite', 'traffic light', 'wall')
COLOURS = [(40, 40, 230), (60, 210, 60), (230, 120, 30), (30, 220, 230), (220, 60, 220)]  # BGR


@dataclass
class Object:
    """What is drawn: the number of its class, its box x, y, width, height, and its outline."""

    label: int
    box: list
    polygon: list
    crowd: bool = False


@dataclass
class Picture:
    """An image, BGR, its objects, and whose pixels are whose: k of the k-th object, from 1."""

    name: str
    image: np.ndarray
    objects: list
    owner: np.ndarray


def make_coco(folder, train=6, val=3, test=0):
    """Write COCO's own layout; its JSON is such that the toolboxes read it as it is.

    Returns:
        dict[str, list[Picture]]: What was drawn, by 'train', 'val' and, if asked for, 'test'.
    """
    folder, drawn = Path(folder), _draw_splits(train, val, test, crowds=True)
    for split, pictures in drawn.items():
        _write_images(folder / f'{split}2017', pictures)
        # Ids with gaps, as COCO's.
        categories = [dict(id=3 * label + 1, name=name) for label, name in enumerate(CLASSES)]
        content = _coco(pictures, categories, [1, 4, 7], first=1)
        _write(folder / 'annotations' / f'instances_{split}2017.json', json.dumps(content))
    return drawn


def make_coco_export(folder, train=6, val=3, test=0):
    """Write the common COCO export: a category over all others, ids that start at 0.

    Returns:
        dict[str, list[Picture]]: What was drawn, by 'train', 'val' and, if asked for, 'test'.
    """
    folder, drawn = Path(folder), _draw_splits(train, val, test, crowds=True)
    for split, pictures in drawn.items():
        place = folder / ('valid' if split == 'val' else split)
        _write_images(place, pictures)
        categories = [dict(id=0, name='things', supercategory='none')]
        categories += [
            dict(id=label, name=name, supercategory='things')
            for label, name in enumerate(CLASSES, 1)
        ]
        content = _coco(pictures, categories, [1, 2, 3], first=0)
        _write(place / '_annotations.coco.json', json.dumps(content))
    return drawn


def make_yolo(folder, polygons=False, train=6, val=3, test=0):
    """Write text labels, boxes or polygons, and ``data.yaml`` as exports write it.

    Returns:
        dict[str, list[Picture]]: What was drawn, by 'train', 'val' and, if asked for, 'test'.
    """
    folder, drawn = Path(folder), _draw_splits(train, val, test)
    for split, pictures in drawn.items():
        place = folder / ('valid' if split == 'val' else split)
        _write_images(place / 'images', pictures)
        for index, picture in enumerate(pictures):
            lines = [_yolo_line(each, picture.owner.shape, polygons) for each in picture.objects]
            # Without objects, some have an empty file, and some none.
            if lines or index:
                path = place / 'labels' / f'{Path(picture.name).stem}.txt'
                _write(path, '\n'.join(lines))
    names = ', '.join(f"'{name}'" for name in CLASSES)
    _write(
        folder / 'data.yaml',
        'train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\n'
        f'nc: {len(CLASSES)}\nnames: [{names}]\n',
    )
    return drawn


def make_maps(folder, train=6, val=3, test=0):
    """Write images, indexed masks whose objects have an edge that is ignored, and classes.txt.

    Returns:
        dict[str, list[Picture]]: What was drawn, by 'train', 'val' and, if asked for, 'test'.
    """
    folder, drawn = Path(folder), _draw_splits(train, val, test)
    for split, pictures in drawn.items():
        for picture in pictures:
            # The toolbox takes images of one kind.
            picture.name = f'{Path(picture.name).stem}.jpg'
            labels = np.array([0, *(each.label + 1 for each in picture.objects)], np.uint8)
            mask = labels[picture.owner]
            mask[cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0] = 255
            path = (folder / 'masks' / split / picture.name).with_suffix('.png')
            path.parent.mkdir(parents=True, exist_ok=True)
            indexed = Image.fromarray(mask)
            # A shorter palette would make PIL save four bits a pixel, which do not hold 255.
            indexed.putpalette(np.random.default_rng(0).bytes(768))
            indexed.save(path)
        _write_images(folder / 'images' / split, pictures)
    _write(folder / 'classes.txt', '\n'.join(SEMANTIC_CLASSES) + '\n')
    return drawn


def make_class_folders(folder, train=6, val=3, test=0):
    """Write folders of five classes, each a shape of its colour.

    Args:
        folder: Where.
        train: Training images of each class.
        val: Validation images of each class.
        test: Test images of each class.

    Returns:
        dict[str, int]: How many images each split has.
    """
    counts = {split: n for split, n in dict(train=train, val=val, test=test).items() if n}
    for number, (split, count) in enumerate(counts.items()):
        for label, name in enumerate(FOLDERS):
            for index in range(count):
                rng = np.random.default_rng([number, label, index])
                image, owner = _noise(rng, index)
                _draw(rng, image, owner, label, (0, 0, *owner.shape), 1)
                path = Path(folder, split, name, f'Bild für {index}.jpg')
                path.parent.mkdir(parents=True, exist_ok=True)
                write_image(path, image)
    return {split: count * len(FOLDERS) for split, count in counts.items()}


def _draw_splits(train, val, test, crowds=False):
    counts = {split: n for split, n in dict(train=train, val=val, test=test).items() if n}
    return {
        split: [
            _picture(np.random.default_rng([number, index]), split, index, crowds)
            for index in range(count)
        ]
        for number, (split, count) in enumerate(counts.items())
    }


def _picture(rng, split, index, crowds):
    image, owner = _noise(rng, index)
    height, width = owner.shape
    cells = [
        (top, left, height // 2, width // 2) for top in (0, height // 2) for left in (0, width // 2)
    ]
    rng.shuffle(cells)
    objects = []
    if split != 'train' or index:
        for label in range(len(CLASSES)):
            objects.append(_draw(rng, image, owner, label, cells[label], len(objects) + 1))
        if crowds and index == 1:
            objects.append(_draw(rng, image, owner, 2, cells[3], len(objects) + 1))
            objects[-1].crowd = True
    suffix = '.png' if index == 2 else '.jpg'
    return Picture(f'Brücke im Grünen {index}{suffix}', image, objects, owner)


def _noise(rng, index):
    height, width = SIZES[index % len(SIZES)]
    image = rng.integers(60, 150, (height, width, 3), np.uint8, endpoint=True)
    return image, np.zeros((height, width), np.uint8)


def _draw(rng, image, owner, label, cell, number):
    """Draw the shape of a class somewhere in a cell (top, left, height, width)."""
    top, left, height, width = (int(value) for value in cell)
    tall, wide = (int(rng.integers(side * 3 // 5, side - 3)) for side in (height, width))
    y = top + int(rng.integers(1, height - tall - 1))
    x = left + int(rng.integers(1, width - wide - 1))
    angles = np.arange(16) * np.pi / 8
    unit = [
        [(0, 0), (1, 0), (1, 1), (0, 1)],
        np.stack([np.cos(angles), np.sin(angles)], axis=1) / 2 + 0.5,
        [(0, 1), (0.5, 0), (1, 1)],
        [(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)],
        [(0.3, 0), (0.7, 0), (1, 1), (0, 1)],
    ][label]
    points = (np.array(unit) * (wide, tall) + (x, y)).round().astype(np.int32)
    mask = cv2.fillPoly(np.zeros_like(owner), [points], 1)
    owner[mask == 1] = number
    image[mask == 1] = np.array(COLOURS[label], np.uint8) // 2 + image[mask == 1] // 4
    box = [int(value) for value in cv2.boundingRect(mask)]
    # The points are the middles of pixels.
    return Object(label, box, (points + 0.5).ravel().tolist())


def _coco(pictures, categories, ids, first):
    images, annotations = [], []
    for image_id, picture in enumerate(pictures, first):
        height, width = picture.owner.shape
        images.append(dict(id=image_id, file_name=picture.name, height=height, width=width))
        for number, each in enumerate(picture.objects, 1):
            mask = picture.owner == number
            annotations.append(
                dict(
                    id=len(annotations) + first,
                    image_id=image_id,
                    category_id=ids[each.label],
                    bbox=each.box,
                    area=int(mask.sum()),
                    iscrowd=int(each.crowd),
                    segmentation=_rle(mask) if each.crowd else [each.polygon],
                )
            )
    return dict(images=images, annotations=annotations, categories=categories)


def _rle(mask):
    """COCO's uncompressed form: lengths of runs of 0, 1, 0, ..., column by column."""
    flat = mask.ravel(order='F').astype(np.int8)
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *ends, flat.size]).tolist()
    return dict(size=list(mask.shape), counts=[0, *runs] if flat[0] else runs)


def _yolo_line(drawn, shape, polygons):
    height, width = shape
    if polygons:
        numbers = np.reshape(drawn.polygon, (-1, 2)) / (width, height)
    else:
        left, top, wide, tall = drawn.box
        middle = (left + wide / 2) / width, (top + tall / 2) / height
        numbers = np.array([*middle, wide / width, tall / height])
    return ' '.join([str(drawn.label), *(f'{number:.6f}' for number in numbers.ravel())])


def _write_images(folder, pictures):
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        write_image(folder / picture.name, picture.image)


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')
