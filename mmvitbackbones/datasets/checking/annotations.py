"""Rules that single rows of a COCO file keep, or break."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

_GROUPS = 7  # of five bits in a number of 32


class Mask(NamedTuple):
    """What is kept of a segmentation, which is most of a file: COCO's has 450 MB.

    Attributes:
        kind: 'none'; 'polygons'; 'short', polygons of which none has three points; 'short first',
            of which the first has not; 'rle'; 'no rle', one that lacks a part; 'broken', else.
        fills: Height and width of the image that an RLE fills; None if it fills none.
    """

    kind: str
    fills: tuple[int, int] | None = None


def is_box(box: Any) -> bool:
    """Whether it is four finite numbers."""
    if not isinstance(box, list) or len(box) != 4:
        return False
    try:
        return math.isfinite(sum(box))
    except TypeError:
        return False


def has_size(image: dict[str, Any]) -> bool:
    """Whether a row of an image says its width and height, in pixels."""
    return all(isinstance(image.get(key), int) and image[key] > 0 for key in ('width', 'height'))


def keep_mask(row: dict[str, Any]) -> dict[str, Any]:
    """Keep of a row's segmentation what :class:`Mask` says; for ``object_hook`` of ``json``."""
    if 'segmentation' in row:
        row['segmentation'] = look_at_mask(row['segmentation'])
    return row


def look_at_mask(segmentation: Any) -> Mask:
    """Tell what kind of segmentation it is.

    Args:
        segmentation: What an annotation has under this name.

    Returns:
        Its kind, by what mmdetection and pycocotools do with it.
    """
    if isinstance(segmentation, dict):
        return _look_at_rle(segmentation)
    if not segmentation:
        return Mask('none')
    if not isinstance(segmentation, list):
        return Mask('broken')
    usable = False
    for polygon in segmentation:
        try:
            if not isinstance(polygon, list) or not math.isfinite(sum(polygon)):
                return Mask('broken')
        except TypeError:
            return Mask('broken')
        usable |= len(polygon) >= 6 and len(polygon) % 2 == 0
    if not usable:
        return Mask('short')
    # By the first one pycocotools tells boxes, of four numbers, from polygons.
    return Mask('polygons' if len(segmentation[0]) > 4 else 'short first')


def can_be_drawn(segmentation: Any) -> bool:
    """Whether pycocotools can draw it: an RLE, or polygons of several points."""
    kind = look_at_mask(segmentation).kind
    return kind == 'rle' or (
        kind in ('polygons', 'short', 'short first')
        and all(len(polygon) > 3 for polygon in segmentation)
    )


def _look_at_rle(rle: dict[str, Any]) -> Mask:
    counts, size = rle.get('counts'), rle.get('size')
    if not isinstance(counts, (list, str)) or not size:
        return Mask('no rle')
    try:
        height, width = (int(side) for side in size)
        if isinstance(counts, str):
            total = int(_runs(counts).sum())
        else:
            total = sum(counts)
    except (TypeError, ValueError):
        return Mask('broken')
    # Of one that is too short or too long pycocotools draws what it finds, beyond its memory, too.
    return Mask('rle', (height, width) if total == height * width else None)


def _runs(text: str) -> np.ndarray:
    """The lengths of runs that COCO's compressed RLE stands for.

    Each number is written in groups of five bits, lowest first, from the character 0 on; the bit 32
    says that another group follows, the bit 16 of the last one that the number is negative. From
    the fourth number on it is the difference to the number two places before.

    Raises:
        ValueError: If it is no such text, or cut short.
    """
    groups = np.frombuffer(text.encode('latin-1'), np.uint8) - np.uint8(48)
    ends = np.flatnonzero(groups & 32 == 0)
    if not len(ends) or ends[-1] != len(groups) - 1 or groups.max() > 63:
        raise ValueError('no RLE')
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _GROUPS:
        raise ValueError('a number that no image has')
    shifts = 5 * (np.arange(len(groups)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((groups & 31).astype(np.int64) << shifts, starts)
    runs -= np.where(groups[ends] & 16, np.int64(1) << 5 * lengths, 0)
    for first in (1, 2):
        runs[first::2] = runs[first::2].cumsum()
    if runs.min() < 0:
        raise ValueError('a negative run')
    return runs
