"""Detections matched with the truth."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmdet.evaluation.functional import bbox_overlaps

IOU = 0.5  # of a detection and an object that it finds


def match(
    boxes: np.ndarray,
    labels: np.ndarray,
    true_boxes: np.ndarray,
    true_labels: np.ndarray,
    ignored: np.ndarray | None = None,
) -> list[tuple[int, int]]:
    """Match each detection, the best first, with the object that it covers best.

    Args:
        boxes (np.ndarray): Detections, (N, 4), x1, y1, x2, y2, the best first.
        labels (np.ndarray): Their classes.
        true_boxes (np.ndarray): Objects, (M, 4).
        true_labels (np.ndarray): Their classes.
        ignored (np.ndarray, optional): Boxes of what is not judged, such as crowds, (K, 4): a
            detection that finds no object and lies at least half there does not count.

    Returns:
        list[tuple[int, int]]: True and found class of each object and of each detection that finds
        none; -1 where there is none.
    """
    pairs = []
    free = np.ones(len(true_boxes), bool)
    overlaps = bbox_overlaps(boxes, true_boxes)
    within = bbox_overlaps(boxes, np.zeros((0, 4)) if ignored is None else ignored, mode='iof')
    for row, label, parts in zip(overlaps, labels, within):
        # An object of the same class goes before one that is covered a little better.
        same = (true_labels == label) & (row >= IOU)
        row = np.where(free, row + same, 0)
        if len(row) and row.max() >= IOU:
            free[row.argmax()] = False
            pairs.append((int(true_labels[row.argmax()]), int(label)))
        elif not (parts >= IOU).any():
            pairs.append((-1, int(label)))
    return pairs + [(int(label), -1) for label in true_labels[free]]


def precision_by_recall(
    images: Sequence[Mapping[str, Any]], classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision at each recall, as pycocotools counts.

    Args:
        images (Sequence[Mapping]): Of each image ``boxes``, ``scores``, ``labels``, ``true_boxes``,
            ``true_labels`` and ``true_ignored``.
        classes (int): Number of classes.

    Returns:
        tuple: IoU thresholds (T,), recalls (R,), and precisions (T, R, classes), NaN for a class
        without objects.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth: dict[str, list[dict[str, Any]]] = dict(images=[], annotations=[])
    truth['categories'] = [dict(id=label + 1, name=str(label)) for label in range(classes)]
    found = []
    for number, image in enumerate(images, 1):
        truth['images'].append(dict(id=number))
        for box, label, ignored in zip(
            image['true_boxes'], image['true_labels'], image['true_ignored']
        ):
            x, y, width, height = _as_coco(box)
            truth['annotations'].append(
                dict(
                    id=len(truth['annotations']) + 1,
                    image_id=number,
                    category_id=int(label) + 1,
                    bbox=[x, y, width, height],
                    area=width * height,
                    iscrowd=int(ignored),
                )
            )
        for box, score, label in zip(image['boxes'], image['scores'], image['labels']):
            category = int(label) + 1
            found.append(
                dict(image_id=number, category_id=category, bbox=_as_coco(box), score=float(score))
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found) if found else COCO(), 'bbox')
        evaluation.params.imgIds = [image['id'] for image in truth['images']]
        evaluation.params.catIds = [category['id'] for category in truth['categories']]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval['precision'][:, :, :, 0, -1]
    params = evaluation.params
    return params.iouThrs, params.recThrs, np.where(precision < 0, np.nan, precision)


def _as_coco(box: np.ndarray) -> list[float]:
    left, top, right, bottom = (float(side) for side in box)
    return [left, top, right - left, bottom - top]
