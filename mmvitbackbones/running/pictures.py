"""Pictures of predictions, legible whatever the size of the image.

The toolboxes draw lines and letters of fixed sizes, or sizes after each box: thread-like on large
images, over everything on small ones. Here both follow from the image; a small image is enlarged.
"""

from __future__ import annotations

import colorsys
import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .predicting import Found

LEAST_SIDE = 480  # of the longer side, in pixels: smaller images are enlarged by a whole factor
LEAST_LETTERS, LETTERS = 12, 60  # their height in pixels; the image's mean side over theirs
BEST = 5  # classes of a classifier
_Colour = tuple[int, int, int]
_Box = tuple[float, float, float, float]


def draw(
    pixels: np.ndarray,
    found: Found,
    classes: Sequence[str],
    palette: Sequence[_Colour] | None = None,
) -> np.ndarray:
    """Draw what was found on an image.

    Args:
        pixels (np.ndarray): The image, BGR (H, W, 3), or grey (H, W).
        found (Found): What a :class:`Predictor` found.
        classes (Sequence[str]): Names of the classes.
        palette (Sequence[tuple], optional): Their colours, RGB; None: any.

    Returns:
        np.ndarray: The picture, BGR; larger than a small image.
    """
    colours = palette or _colours(len(classes))
    picture = _Picture(pixels)
    if found.boxes is not None and found.labels is not None:
        for number in _large_first(found.boxes):
            colour = colours[found.labels[number]]
            if found.masks is not None:
                picture.fill(found.masks[number], colour)
            picture.box(found.boxes[number], colour)
        for box, label, score in zip(found.boxes, found.labels, found.scores):
            picture.label(box, classes[label], f' {score:.2f}', colours[label])
    elif found.labels is not None:
        table = np.array(colours, np.uint8)
        picture.blend(table[np.minimum(found.labels, len(table) - 1)])
        for label, place in _middles(found.labels):
            if label < len(classes):
                picture.word(place, classes[label], colours[label])
    else:
        best = found.scores.argsort()[::-1][:BEST]
        picture.list_words([f'{found.scores[label]:.2f} {classes[label]}' for label in best])
    return picture.finished()


class _Picture:
    """An image that is drawn on, in coordinates of the image as it was."""

    def __init__(self, pixels: np.ndarray) -> None:
        if pixels.dtype != np.uint8:
            pixels = np.interp(pixels, (pixels.min(), pixels.max()), (0, 255)).astype(np.uint8)
        if pixels.ndim == 2:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
        pixels = np.ascontiguousarray(pixels[..., 2::-1])
        self.scale = max(1, math.ceil(LEAST_SIDE / max(pixels.shape[:2])))
        height, width = (side * self.scale for side in pixels.shape[:2])
        self._pixels = self._enlarged(pixels)
        letters = max(LEAST_LETTERS, round(math.sqrt(height * width) / LETTERS))
        self.line = max(2, round(letters / 6))
        self._font = _font(letters)
        self._row = letters + 2 * self.line
        # A narrow image gets a margin where words can stand.
        self._size = max(width, 16 * letters), max(height, (BEST + 1) * self._row)
        self._taken: list[_Box] = []
        self._words: list[tuple[_Box, str, _Colour]] = []

    def _enlarged(self, pixels: np.ndarray) -> np.ndarray:
        if self.scale == 1:
            return pixels
        size = (pixels.shape[1] * self.scale, pixels.shape[0] * self.scale)
        return cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST)

    def fill(self, mask: np.ndarray, colour: _Colour) -> None:
        """Tint what a mask covers, and draw its outline."""
        left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
        if width == 0:
            return
        inside = self._enlarged(mask[top : top + height, left : left + width].astype(np.uint8))
        y, x = top * self.scale, left * self.scale
        part = self._pixels[y : y + inside.shape[0], x : x + inside.shape[1]]
        where = inside > 0
        part[where] = (0.6 * part[where] + 0.4 * np.array(colour)).astype(np.uint8)
        outlines, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(self._pixels, outlines, -1, colour, max(1, self.line // 2), offset=(x, y))

    def box(self, box: np.ndarray, colour: _Colour) -> None:
        """Draw a box."""
        left, top, right, bottom = (round(float(side) * self.scale) for side in box)
        height, width = self._pixels.shape[:2]
        # Whole at the border, where half of the line would be outside.
        half = self.line // 2
        left, right = (min(max(x, half), width - 1 - half) for x in (left, right))
        top, bottom = (min(max(y, half), height - 1 - half) for y in (top, bottom))
        cv2.rectangle(self._pixels, (left, top), (right, bottom), colour, self.line)

    def blend(self, colours: np.ndarray) -> None:
        """Tint all pixels, each by a colour of its own."""
        self._pixels = cv2.addWeighted(self._pixels, 0.5, self._enlarged(colours), 0.5, 0)

    def label(self, box: np.ndarray, name: str, score: str, colour: _Colour) -> None:
        """Name a box: above it, within it, or below, where no other name stands."""
        left, top, _, bottom = (float(side) * self.scale for side in box)
        places = [(left, top - self._row), (left, top), (left, bottom), (left, bottom - self._row)]
        places = [place for place in places if self._fits(place)] or places
        self._put(places, self._shortened(name, score), colour)

    def word(self, middle: tuple[float, float], text: str, colour: _Colour) -> None:
        """Write a word around a place."""
        x, y = (value * self.scale for value in middle)
        text = self._shortened(text)
        half = self._font.getlength(text) / 2 + self.line
        shifts = (0, self._row, -self._row, 2 * self._row, -2 * self._row)
        self._put([(x - half, y - self._row / 2 + shift) for shift in shifts], text, colour)

    def list_words(self, texts: Sequence[str]) -> None:
        """Write lines at the top."""
        for number, text in enumerate(texts):
            self._put([(0, number * self._row)], self._shortened(text), (0, 0, 0))

    def _fits(self, place: tuple[float, float]) -> bool:
        return 0 <= place[1] <= self._size[1] - self._row

    def _put(self, places: Sequence[tuple[float, float]], text: str, colour: _Colour) -> None:
        """Write at the first place that is free, else at the first."""
        width = self._font.getlength(text) + 2 * self.line
        boxes = []
        for x, y in places:
            x = min(max(0, x), self._size[0] - width)
            y = min(max(0, y), self._size[1] - self._row)
            boxes.append((x, y, x + width, y + self._row))
        free = (box for box in boxes if not any(_overlap(box, other) for other in self._taken))
        box = next(free, boxes[0])
        self._taken.append(box)
        self._words.append((box, text, colour))

    def _shortened(self, text: str, end: str = '') -> str:
        """A text that is no wider than the picture; its end stays."""
        room = self._size[0] - 2 * self.line
        if self._font.getlength(text + end) <= room:
            return text + end
        while text and self._font.getlength(f'{text}…{end}') > room:
            text = text[:-1]
        return f'{text}…{end}'

    def finished(self) -> np.ndarray:
        """The picture, with all words; the best detection's are never covered."""
        height, width = self._pixels.shape[:2]
        margin = ((0, self._size[1] - height), (0, self._size[0] - width), (0, 0))
        pixels = np.pad(self._pixels, margin, constant_values=255)
        image = Image.fromarray(pixels)
        pen = ImageDraw.Draw(image)
        for box, text, colour in reversed(self._words):
            pen.rectangle(box, fill=colour)
            red, green, blue = colour
            letters = 'black' if 0.3 * red + 0.59 * green + 0.11 * blue > 140 else 'white'
            place = (box[0] + self.line, (box[1] + box[3]) / 2)
            pen.text(place, text, letters, self._font, anchor='lm')
        return np.asarray(image)[..., ::-1]


@functools.cache
def _font(letters: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib; OpenCV's own letters are ASCII alone."""
    path = Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
    return ImageFont.truetype(str(path), letters)


@functools.cache
def _colours(count: int) -> list[_Colour]:
    """Colours that differ from their neighbours."""
    colours = []
    for number in range(count):
        value = 1 if number % 2 == 0 else 0.75
        red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.85, value)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colours


def _large_first(boxes: np.ndarray) -> np.ndarray:
    return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).argsort()[::-1]


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _middles(labels: np.ndarray) -> Iterator[tuple[int, tuple[float, float]]]:
    """The middle of each class's largest region, of those that are not tiny: (x, y)."""
    scale = max(1.0, max(labels.shape) / 512)  # quick on large images
    size = tuple(max(1, round(side / scale)) for side in labels.shape[::-1])
    small = cv2.resize(labels.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    for label in np.unique(small):
        region = (small == label).astype(np.uint8)
        _, regions, statistics, _ = cv2.connectedComponentsWithStats(region)
        largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
        if statistics[largest, cv2.CC_STAT_AREA] * 1000 < small.size:
            continue
        # The point that is farthest from the region's border, which the centre may lie outside of.
        inside = np.pad((regions == largest).astype(np.uint8), 1)
        y, x = divmod(int(cv2.distanceTransform(inside, cv2.DIST_L2, 3).argmax()), inside.shape[1])
        yield int(label), ((x - 0.5) * scale, (y - 0.5) * scale)
