"""COCO files as mmdetection's data sets and evaluations read them."""

from __future__ import annotations

import codecs
import gc
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .annotations import Mask, has_size, is_box, keep_mask
from .findings import Finding, Kind, Tally

_SKIPPED = 'skipped as mmdetection does'
_COUNTED = 'not loaded, but the evaluation counts them as objects to find, as mmdetection does'
_REMOVE = 'remove or fix them'
_OWN_ID = 'give each its own'
_LISTS = ('images', 'annotations', 'categories')

_ODD_ROW = 'write each as an object {...}'
_IMAGE_FIELDS = Kind('images have no id', 'write id and file_name of each')
_IMAGE_TWICE = Kind('images have the id of another', _OWN_ID)
_NO_SIZE = Kind('images have no width and height', 'write those of the file, in pixels')
_NO_NAME = Kind('images have no file_name', 'write it, relative to the folder of the images')
_OUT_OF_FOLDER = Kind(
    'images have names with .. or from the root', 'write them relative to the folder of the images'
)
_CATEGORY_FIELDS = Kind('categories lack id or name', 'write both of each')
_CATEGORY_TWICE = Kind('categories have the id of another', _OWN_ID)
_NAME_TWICE = Kind('categories have the name of another', 'keep one of each name')
_ID = Kind('annotations have no id', 'write one of each, from 1')
_ID_TWICE = Kind('annotations have the id of another', _OWN_ID)
_ID_0 = Kind(
    'annotations have the id 0',
    'evaluated as never found, as pycocotools takes 0 for none: number from 1',
    refused=False,
)
_NO_REFERENCE = Kind('annotations have no image_id or category_id', 'write both of each')
_NO_IMAGE = Kind('annotations belong to images that are not listed', _SKIPPED, refused=False)
_NO_CATEGORY = Kind('annotations belong to categories that are not listed', _SKIPPED, refused=False)
_NO_BOX = Kind('annotations have no bbox of four finite numbers [x, y, width, height]', _REMOVE)
_NO_AREA = Kind('annotations have no area', 'write that of the mask, or of the box, in pixels')
_NO_CROWD = Kind('annotations have no iscrowd', 'write 0, as the evaluation asks for it')
_NO_MASK = Kind('annotations have no mask', 'add segmentation, or take a config for boxes alone')
_BROKEN_MASK = Kind(
    'annotations have a segmentation that is neither polygons nor RLE',
    'write [[x1, y1, x2, y2, x3, y3, ...]], or {"size": [height, width], "counts": ...}',
)
_WRONG_RLE = Kind(
    'annotations have an RLE that does not fill its image',
    'its runs must sum up to height times width of the image, and its size be theirs',
)
_SHORT = 'annotations have no polygon of three or more points x, y'
_SHORT_FIRST = 'annotations have a first polygon of fewer than three points x, y'
_INCOMPLETE = 'annotations have an RLE without size or counts'
_REACHES_OUT = Kind(
    'annotations have boxes that reach out of their image by more than a pixel',
    'clipped as mmdetection does',
    refused=False,
)


@dataclass(frozen=True)
class Use:
    """What a config does with a COCO file.

    Attributes:
        classes: The classes of the data set; None: not said.
        masks: Whether the data set loads masks.
        metrics: What it is evaluated by, such as 'bbox' and 'segm'; none where it is not.
        filters: Whether images without objects are left out.
    """

    classes: tuple[str, ...] | None
    masks: bool = False
    metrics: frozenset[str] = frozenset()
    filters: bool = False


@dataclass
class CocoFile:
    """What is kept of a file.

    Attributes:
        findings: What is wrong with it.
        images: Width and height of each image that has them, by its name.
        ids: The ids of the images.
    """

    findings: list[Finding] = field(default_factory=list)
    images: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    ids: set[Any] = field(default_factory=set)


def check_coco(path: str, use: Use) -> CocoFile:
    """Check a COCO file, of which the images are not looked at.

    Args:
        path: The file.
        use: What it is for.

    Returns:
        What is wrong with it, and what it says about images.

    Raises:
        OSError: If it may not be read.
    """
    with _without_collection():
        return _check(path, use)


def _check(path: str, use: Use) -> CocoFile:
    content = _load(path)
    if isinstance(content, Finding):
        return CocoFile([content])
    tally, file = Tally(), CocoFile()
    images = _check_images(content['images'], tally, file)
    names = _check_categories(content['categories'], use.classes, tally)
    file.findings += _check_names(path, names, use)
    if any(finding.refused for finding in file.findings):
        file.findings += tally.findings(path)
        return file
    wanted = {n for n, name in names.items() if use.classes is None or name in use.classes}
    with_objects = _check_annotations(content['annotations'], images, names, wanted, use, tally)
    file.findings += tally.findings(path)
    file.findings += _check_what_is_left(path, content, with_objects, use)
    return file


def _load(path: str) -> dict[str, Any] | Finding:
    raw = Path(path).read_bytes()
    if not raw.strip():
        return Finding(path, 'is empty', 'write it anew')
    if raw.startswith(codecs.BOM_UTF8):
        return Finding(
            path, 'starts with a byte-order mark', 'save it as UTF-8 without one, as json needs it'
        )
    try:
        content = json.loads(raw.decode(), object_hook=keep_mask)
    except UnicodeDecodeError as error:
        return Finding(path, f'is not in UTF-8 ({error.reason})', 'save it as that')
    except (ValueError, RecursionError) as error:
        return Finding(path, f'is no JSON ({error})', 'write it anew, it may be cut short')
    if not isinstance(content, dict):
        kind = 'a list' if isinstance(content, list) else 'a single value'
        return Finding(
            path, f'is {kind}, not a COCO file', f'it needs an object of {", ".join(_LISTS)}'
        )
    for key in _LISTS:
        rows = content.get(key)
        if not isinstance(rows, list):
            return Finding(path, f'has no list {key!r}', 'a COCO file needs it')
        if not all(isinstance(row, dict) for row in rows):
            return Finding(path, f'has other things than objects in {key!r}', _ODD_ROW)
    return content


@contextmanager
def _without_collection() -> Iterator[None]:
    """Nothing that JSON makes is in a cycle; to look for cycles takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check_images(rows: list[dict[str, Any]], tally: Tally, file: CocoFile) -> dict[Any, Any]:
    """Check the list of images; return them by their ids."""
    images: dict[Any, dict[str, Any]] = {}
    for row in rows:
        number, name = row.get('id'), row.get('file_name')
        if not isinstance(name, str) or not name:
            tally.add(_NO_NAME, _image_words, row)
            continue
        if not isinstance(number, (int, str)):
            tally.add(_IMAGE_FIELDS, _image_words, row)
            continue
        if number in images:
            tally.add(_IMAGE_TWICE, _image_words, row)
        images[number] = row
        parts = name.replace('\\', '/').split('/')
        if not parts[0] or '..' in parts or parts[0].endswith(':'):
            tally.add(_OUT_OF_FOLDER, str, name)
            continue
        sized = has_size(row)
        if not sized:
            tally.add(_NO_SIZE, _image_words, row)
        file.images[name] = (row['width'], row['height']) if sized else None
    file.ids = set(images)
    return images


def _check_categories(
    rows: list[dict[str, Any]], classes: tuple[str, ...] | None, tally: Tally
) -> dict[Any, str]:
    """Check the list of categories; return their names by their ids, in the order of the file."""
    names: dict[Any, str] = {}
    for row in rows:
        number, name = row.get('id'), row.get('name')
        if not isinstance(number, (int, str)) or not isinstance(name, str):
            tally.add(_CATEGORY_FIELDS, _category_words, row)
        elif number in names:
            tally.add(_CATEGORY_TWICE, _category_words, row)
        else:
            if name in names.values() and (classes is None or name in classes):
                tally.add(_NAME_TWICE, str, name)
            names[number] = name
    return names


def _check_names(path: str, names: dict[Any, str], use: Use) -> Iterable[Finding]:
    """Compare the categories with the classes of the config.

    mmdetection numbers the classes as the file orders its categories: what is missing, or in
    another order, shifts the numbers of others without a word.
    """
    if use.classes is None:
        return
    there = set(names.values())
    found = [name for name in dict.fromkeys(names.values()) if name in use.classes]
    if not found:
        yield Finding(
            path,
            f'no category matches (categories in {path}: {_several(list(names.values()))}; classes '
            f'of the config: {_several(use.classes)})',
            'set metainfo=dict(classes=...) of the data sets to the names in the file',
        )
        return
    missing = [name for name in use.classes if name not in there]
    if found != list(use.classes[: len(found)]):
        yield Finding(
            path,
            'its categories are not numbered by mmdetection like the classes of the config '
            f'(categories: {_several(found)}; classes: {_several(use.classes)})',
            'bring the categories of the file into the order of the classes, all of them',
        )
    elif missing:
        yield Finding(
            path,
            f'{len(missing)} classes of the config have no category',
            'never an object, as in mmdetection',
            refused=False,
            first=tuple(missing[:3]),
            count=len(missing),
        )


def _check_annotations(
    rows: list[dict[str, Any]],
    images: dict[Any, dict[str, Any]],
    names: dict[Any, str],
    wanted: set[Any],
    use: Use,
    tally: Tally,
) -> set[Any]:
    """Check the list of annotations; return the ids of images that have objects."""
    lost = _COUNTED if use.metrics else _SKIPPED
    thin = Kind('annotations have boxes narrower or lower than a pixel', lost, refused=False)
    flat = Kind('annotations have an area of 0 or less', lost, refused=False)
    outside = Kind('annotations have boxes outside their image', lost, refused=False)
    seen, with_objects, no_mask = set(), set(), Mask('none')
    sized = {number for number, image in images.items() if has_size(image)}

    def add(kind: Kind, row: dict[str, Any]) -> None:
        tally.add(kind, _words, row, images)

    for row in rows:
        number, image_id = row.get('id'), row.get('image_id')
        image = images.get(image_id) if isinstance(image_id, (int, str)) else None

        if not isinstance(number, (int, str)):
            add(_ID, row)
            continue
        if number in seen:
            add(_ID_TWICE, row)
        seen.add(number)
        category = row.get('category_id')
        if image_id is None or category is None:
            add(_NO_REFERENCE, row)
            continue
        if image is None:
            add(_NO_IMAGE, row)
            continue
        # An ignored one is none to train on, and its box is not even read.
        if row.get('ignore') and not use.metrics:
            continue
        box: Any = row.get('bbox')
        area = row.get('area')
        if not is_box(box):
            add(_NO_BOX, row)
            continue
        if not isinstance(area, (int, float)) or area != area:
            add(_NO_AREA, row)
            continue
        if category not in wanted:
            if category not in names:
                add(_NO_CATEGORY, row)
            continue
        with_objects.add(image_id)
        if use.metrics:
            if number == 0:
                add(_ID_0, row)
            if row.get('iscrowd') not in (0, 1):
                add(_NO_CROWD, row)
        if use.masks or 'segm' in use.metrics:
            kind = _fault_of_mask(row.get('segmentation', no_mask), image, use)
            if kind is not None:
                add(kind, row)
        if image_id not in sized:
            continue
        left, top, width, height = box
        right, bottom = left + width, top + height
        if width < 1 or height < 1:
            add(thin, row)
        elif left >= image['width'] or top >= image['height'] or right <= 0 or bottom <= 0:
            add(outside, row)
        elif area <= 0:
            add(flat, row)
        elif left < -1 or top < -1 or right > image['width'] + 1 or bottom > image['height'] + 1:
            add(_REACHES_OUT, row)
    return with_objects


def _image_words(row: dict[str, Any]) -> str:
    return f'id {row.get("id")}, {row.get("file_name")}'


def _category_words(row: dict[str, Any]) -> str:
    return f'id {row.get("id")}, {row.get("name")}'


def _words(row: dict[str, Any], images: dict[Any, dict[str, Any]]) -> str:
    image_id = row.get('image_id')
    image = images.get(image_id) if isinstance(image_id, (int, str)) else None
    return f'id {row.get("id")}, {image["file_name"] if image else f"image {image_id}"}'


def _fault_of_mask(mask: Mask, image: dict[str, Any], use: Use) -> Kind | None:
    if mask.kind == 'none':
        return _NO_MASK
    if mask.kind == 'broken':
        return _BROKEN_MASK
    if mask.kind == 'rle' and mask.fills != (image.get('height'), image.get('width')):
        return _WRONG_RLE
    # pycocotools ends with an error.
    refused = 'segm' in use.metrics
    if mask.kind == 'short first' and refused:
        return Kind(_SHORT_FIRST, _REMOVE)
    if mask.kind in ('short', 'no rle'):
        problem = _SHORT if mask.kind == 'short' else _INCOMPLETE
        # mmdetection marks the object as ignored.
        return Kind(problem, _REMOVE if refused else 'ignored as mmdetection does', refused)
    return None


def _check_what_is_left(
    path: str, content: dict[str, Any], with_objects: set[Any], use: Use
) -> Iterable[Finding]:
    """There have to be images, and objects of the classes on some of them."""
    purpose = 'evaluate' if use.metrics else 'train'
    if not content['images']:
        yield Finding(path, 'has no images', f'there is nothing to {purpose} on: add some')
    elif not content['annotations'] and (use.metrics or use.filters):
        yield Finding(path, 'has no annotations', f'there is nothing to {purpose} on: add some')
    elif not with_objects and (use.metrics or use.filters):
        yield Finding(
            path,
            'no image has an object of the classes left',
            f'there is nothing to {purpose} on: fix what is said about its annotations',
        )


def _several(names: Sequence[str]) -> str:
    shown = ', '.join(names[:8])
    return f'{shown}, and {len(names) - 8} more' if len(names) > 8 else shown or 'none'
