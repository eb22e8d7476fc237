"""Scenes of real handwritten digits: boxes, masks and semantic maps that need no download."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.utils import track_iter_progress

from .cores import on_all_cores
from .once import make_once

CLASSES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
SEMANTIC_CLASSES = ('background', *CLASSES)
# One RGB colour a digit, in the order of CLASSES.
PALETTE = [
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (0, 90, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (128, 60, 0),
    (170, 255, 195),
]
SPLITS = ('training', 'validation')

FORMAT = 2  # to be raised with every change of what is drawn or how it is stored
# Digits in a scene. Training costs as much with more of them, and learns from each.
NUM_DIGITS = dict(training=(8, 16), validation=(3, 8))
DIGIT_SIDE = (24, 110)  # larger side in pixels of a digit's visible box
MAX_ANGLE = 25  # degrees; small enough that 6 and 9 stay apart
MIN_VISIBLE = 0.6  # part of a digit that later digits may not cover

CELL = 8  # pixels per cell of an enlarged handwritten digit
INK = 0.5  # ink level, of 1, at which a digit's edge lies
MARGIN = 2  # pixels around a digit for its soft edge
SCENES_A_PROCESS = 100  # fewer are not worth a process of their own
LUMA = np.sqrt(np.array([0.114, 0.587, 0.299], np.float32))  # how much an eye sees of B, G and R


@dataclass(frozen=True)
class Glyph:
    """A handwritten digit.

    Attributes:
        index: Its place in scikit-learn's ``load_digits``.
        label: The digit it shows, 0 to 9.
        ink: Smooth ink levels, float32 (10 * CELL, 10 * CELL), above ``INK`` inside the strokes.
        hull: Points (N, 2) as x, y around the inked part of ``ink``.
    """

    index: int
    label: int
    ink: np.ndarray
    hull: np.ndarray


def load_glyphs(split: str) -> list[Glyph]:
    """Load the handwritten digits that the scenes of a split are made of.

    Args:
        split: 'training' or 'validation'. No handwritten digit belongs to both.

    Returns:
        The digits of the split, about four fifths of all for 'training'.

    Raises:
        ValueError: If ``split`` is another word.
        ImportError: If scikit-learn is not installed.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be 'training' or 'validation', got {split!r}")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            'the digit scenes are made from the data inside scikit-learn: pip install scikit-learn'
        ) from error
    data = load_digits()
    glyphs = []
    for index, (cells, label) in enumerate(zip(data.images, data.target)):
        # The digits come in runs of 0 to 9, so blocks of ten keep the classes balanced.
        if (index // 10 % 5 == 4) != (split == 'validation'):
            continue
        padded = np.pad(cells.astype(np.float32) / 16, 1)
        ink = cv2.resize(padded, None, fx=CELL, fy=CELL, interpolation=cv2.INTER_CUBIC)
        # At 8 x 8 the holes of an 8 are nearly as dark as its strokes: sharpening opens them.
        ink = ink + 2 * (ink - cv2.GaussianBlur(ink, (0, 0), CELL))
        points = np.argwhere(ink >= INK)[:, ::-1].astype(np.int32)
        hull = cv2.convexHull(points).reshape(-1, 2)
        glyphs.append(Glyph(index, int(label), ink, hull))
    return glyphs


def draw_scene(
    glyphs: list[Glyph],
    rng: np.random.Generator,
    size: int = 256,
    num_digits: tuple[int, int] = NUM_DIGITS['validation'],
) -> tuple[np.ndarray, np.ndarray, list[Glyph]]:
    """Draw digits over a textured and cluttered background.

    Args:
        glyphs: Digits to choose from; every class 0 to 9 must be among them.
        rng: The source of everything random in the scene.
        size: Mean side of the image in pixels; each side is drawn within an eighth of it.
        num_digits: The least and the largest number of digits.

    Returns:
        The BGR image, uint8 (H, W, 3); the map of visible digits, uint8 (H, W), 0 where there is
        background and k where the k-th digit is seen; and those digits, k = 1 first. Later digits
        lie on top of earlier ones.
    """
    height, width = rng.integers(size - size // 8, size + size // 8, size=2, endpoint=True)
    image = _background(rng, height, width)
    owner = np.zeros((height, width), np.uint8)
    by_label = [[glyph for glyph in glyphs if glyph.label == label] for label in range(10)]
    max_side = min(DIGIT_SIDE[1], size * DIGIT_SIDE[1] // 256)
    count = rng.integers(*num_digits, endpoint=True)
    placed: list[Glyph] = []
    areas: list[int] = []
    while len(placed) < count:
        candidates = by_label[rng.integers(10)]
        glyph = candidates[rng.integers(len(candidates))]
        side = np.exp(rng.uniform(*np.log([DIGIT_SIDE[0], max_side])))
        alpha = _stamp(glyph, side, rng.uniform(-MAX_ANGLE, MAX_ANGLE))
        top = rng.integers(height - alpha.shape[0], endpoint=True)
        left = rng.integers(width - alpha.shape[1], endpoint=True)
        region = np.s_[top : top + alpha.shape[0], left : left + alpha.shape[1]]

        mask = alpha >= 0.5
        covered = owner.copy()
        covered[region][mask] = len(placed) + 1
        areas.append(int(mask.sum()))
        hidden = [number for number in np.unique(owner[region][mask]) if number]
        if not _all_visible(covered, [*hidden, len(areas)], areas, max_side):
            areas.pop()
            continue
        owner = covered
        placed.append(glyph)
        patch = image[region]
        patch += alpha[..., None] * (_contrasting_colour(rng, patch) - patch)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(2, 9)
    return np.clip(image + noise, 0, 255).astype(np.uint8), owner, placed


def make_digit_scenes(
    root: str = 'data/demo',
    num_train: int = 1600,
    num_val: int = 240,
    size: int = 256,
    seed: int = 0,
) -> str:
    """Write the demo data set, unless it is there already.

    The images lie in ``images/{training,validation}/000000.jpg``, the boxes and instance masks of
    what is visible in ``annotations/instances_{training,validation}.json`` (COCO format,
    categories 1 to 10; ``digit_index`` of an annotation tells which handwritten digit it shows),
    the semantic maps in ``annotations/{training,validation}/000000.png`` (as ADE20K's: 0 is
    unlabelled, 1 background, 2 to 11 the digits, so use ``reduce_zero_label=True``). The folder
    appears only when it is complete. Equal arguments give equal files.

    Args:
        root: The folder to write.
        num_train: Number of training scenes, at least 1.
        num_val: Number of validation scenes, at least 1.
        size: Mean side of the images in pixels, at least 128. Below 256 the largest digits shrink
            in proportion.
        seed: What the scenes are drawn from, at least 0.

    Returns:
        ``root``.

    Raises:
        ValueError: If a number is too small.
        FileExistsError: If ``root`` holds something else; nothing of it is touched.
        ImportError: If scikit-learn or pycocotools is not installed.
    """
    meta = dict(format=FORMAT, num_train=num_train, num_val=num_val, size=size, seed=seed)
    for name, least in dict(num_train=1, num_val=1, size=128, seed=0).items():
        if not isinstance(meta[name], int) or meta[name] < least:
            raise ValueError(f'{name} must be an integer of at least {least}, got {meta[name]!r}')

    def write(folder: Path) -> None:
        for split, count in zip(SPLITS, (num_train, num_val)):
            print(f'Drawing {count} {split} scenes for {root}', flush=True)
            _write_split(folder, split, count, size, seed)

    return make_once(root, meta, write, 'digit scenes')


def _write_split(folder: Path, split: str, count: int, size: int, seed: int) -> None:
    image_folder = folder / 'images' / split
    map_folder = folder / 'annotations' / split
    image_folder.mkdir(parents=True)
    map_folder.mkdir(parents=True)
    _glyphs.cache_clear()
    _glyphs(split)  # processes that are forked have them, too
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    write = functools.partial(_write_scene, image_folder, map_folder, split, size, seed)
    # COCO's evaluation takes an id of 0 for "none", hence ids from 1.
    drawn = on_all_cores(write, range(count), SCENES_A_PROCESS)
    scenes = track_iter_progress((drawn, count))
    for image_id, (image, found) in enumerate(scenes, 1):
        images.append(dict(image, id=image_id))
        for annotation in found:
            annotations.append(dict(annotation, id=len(annotations) + 1, image_id=image_id))
    categories = [dict(id=number, name=name) for number, name in enumerate(CLASSES, 1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))


def _write_scene(
    image_folder: Path, map_folder: Path, split: str, size: int, seed: int, index: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Draw a scene; return its image and annotations as COCO has them, but for the ids."""
    # A smaller scene has room for fewer.
    room = min(1.0, (size / 256) ** 2)
    few, many = (
        max(least, int(room * number))
        for least, number in zip(NUM_DIGITS['validation'], NUM_DIGITS[split])
    )
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    image, owner, placed = draw_scene(_glyphs(split), rng, size, (few, many))
    name = f'{index:06d}'
    semantic = np.array([1, *(glyph.label + 2 for glyph in placed)], np.uint8)[owner]
    write_image(image_folder / f'{name}.jpg', image)
    write_image(map_folder / f'{name}.png', semantic)
    height, width = owner.shape
    annotations = [_annotation(owner == number, glyph) for number, glyph in enumerate(placed, 1)]
    return dict(file_name=f'{name}.jpg', height=height, width=width), annotations


@functools.cache
def _glyphs(split: str) -> list[Glyph]:
    """Loaded once in each process."""
    return load_glyphs(split)


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image; a full disk is an error."""
    # cv2.imwrite would only return False on a full disk.
    _, encoded = cv2.imencode(path.suffix, image)  # JPEG quality 95 by default
    path.write_bytes(encoded.tobytes())


def _annotation(mask: np.ndarray, glyph: Glyph) -> dict[str, Any]:
    try:
        from pycocotools import mask as coco_mask
    except ImportError as error:
        raise ImportError(
            'pycocotools is needed to store instance masks: pip install pycocotools'
        ) from error
    binary = mask.astype(np.uint8)
    encoded = coco_mask.encode(np.asfortranarray(binary))
    return dict(
        category_id=glyph.label + 1,
        bbox=[int(value) for value in cv2.boundingRect(binary)],
        area=int(binary.sum()),
        iscrowd=0,
        segmentation=dict(size=encoded['size'], counts=encoded['counts'].decode('ascii')),
        digit_index=glyph.index,
    )


def _stamp(glyph: Glyph, side: float, angle: float) -> np.ndarray:
    """Opacity (h, w) of a digit turned by ``angle`` degrees, its larger side ``side`` pixels."""
    rotation = cv2.getRotationMatrix2D((0, 0), angle, 1)[:, :2]
    points = glyph.hull @ rotation.T
    low, high = points.min(axis=0), points.max(axis=0)
    scale = side / (high - low).max()
    matrix = np.hstack([scale * rotation, (MARGIN - scale * low)[:, None]])
    width, height = np.ceil(scale * (high - low)).astype(int) + 2 * MARGIN
    ink = cv2.warpAffine(glyph.ink, matrix, (int(width), int(height)), flags=cv2.INTER_LINEAR)
    # Ink fades over about half a cell; this slope makes edges one to two pixels soft at any scale.
    return np.clip(0.5 + (ink - INK) * 0.4 * CELL * scale, 0, 1)


def _all_visible(owner: np.ndarray, numbers: list[int], areas: list[int], max_side: int) -> bool:
    """Whether enough is seen of these digits, ``areas`` being the pixels of all when uncovered."""
    for number in numbers:
        visible = (owner == number).astype(np.uint8)
        side = max(cv2.boundingRect(visible)[2:])
        if visible.sum() < MIN_VISIBLE * areas[number - 1]:
            return False
        if not DIGIT_SIDE[0] <= side <= max_side:
            return False
    return True


def _contrasting_colour(rng: np.random.Generator, patch: np.ndarray) -> np.ndarray:
    """A random colour that stands out from nearly all pixels of ``patch`` (h, w, 3)."""
    colours = rng.uniform(0, 255, (10, 3)).astype(np.float32)
    pixels = patch[::3, ::3].reshape(-1, 3)
    distances = np.linalg.norm((colours[:, None] - pixels) * LUMA, axis=-1)
    return colours[np.percentile(distances, 10, axis=1).argmax()]


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Two related colours mixed by smooth noise and stripes, grain, and clutter: (H, W, 3)."""
    base = rng.uniform(20, 235, 3)
    other = base + rng.uniform(-50, 50, 3)
    mix = _smooth_noise(rng, height, width, int(rng.integers(3, 12)))
    if rng.random() < 0.5:
        rows, columns = np.ogrid[:height, :width]
        angle, period = rng.uniform(0, np.pi), rng.uniform(8, 40)
        wave = np.sin((np.cos(angle) * columns + np.sin(angle) * rows) * 2 * np.pi / period)
        mix = 0.6 * mix + 0.2 * (1 + wave)
    image = base + mix[..., None] * (other - base)
    image += (_smooth_noise(rng, height, width, 80) - 0.5)[..., None] * rng.uniform(0, 40)
    image = np.clip(image, 0, 255).astype(np.uint8)  # OpenCV smooths edges only of bytes
    for _ in range(rng.integers(5, 14)):
        colour = base + rng.uniform(0.2, 0.7) * (rng.uniform(0, 255, 3) - base)
        _draw_clutter(rng, image, colour)
    return image.astype(np.float32)


def _smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    grid = rng.random((cells, cells), dtype=np.float32)
    return cv2.resize(grid, (int(width), int(height)), interpolation=cv2.INTER_CUBIC)


def _draw_clutter(rng: np.random.Generator, image: np.ndarray, colour: np.ndarray) -> None:
    """Draw one shape that is no digit: a thin line, an open arc, an ellipse or a blob."""
    height, width = image.shape[:2]
    centre = rng.uniform(0, 1, 2) * (width, height)
    kind = rng.choice(['line', 'arc', 'ellipse', 'blob'])
    if kind == 'line':
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(40, 300)
        end = centre + length * np.array([np.cos(angle), np.sin(angle)])
        first, last = (tuple(int(value) for value in point) for point in (centre, end))
        cv2.line(image, first, last, colour.tolist(), int(rng.integers(1, 5)), cv2.LINE_AA)
    elif kind == 'blob':
        angles = np.arange(12) * np.pi / 6
        radii = rng.uniform(5, 40) * rng.uniform(0.5, 1, 12)
        points = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        cv2.fillPoly(image, [points.astype(np.int32)], colour.tolist(), cv2.LINE_AA)
    else:
        axes = tuple(int(value) for value in rng.integers(5, 45, 2))
        turn, start = rng.uniform(0, 360, 2)
        # A closed ring would read as a zero, so outlines stay open and closed ones are filled.
        sweep, thickness = (360, -1) if kind == 'ellipse' else (rng.uniform(60, 200), 3)
        middle = tuple(int(value) for value in centre)
        cv2.ellipse(
            image, middle, axes, turn, start, start + sweep, colour.tolist(), thickness, cv2.LINE_AA
        )
