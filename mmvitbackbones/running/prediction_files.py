"""The files that predictions go to: written image by image, complete or not there at all."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

import cv2
import numpy as np

from .image_files import Image
from .pictures import BEST, draw
from .predicting import Found, Predictor

UNFINISHED = 'unfinished'


def check_out(out: str, sources: Sequence[str]) -> None:
    """Check that results may go to a folder.

    Args:
        out (str): The folder.
        sources (Sequence[str]): Folders of images, which nothing is written to.

    Raises:
        FileExistsError: If there is something in it.
        ValueError: If it is a source, or lies in one.
    """
    place = Path(out).resolve()
    for source in map(Path, sources):
        if source.resolve() in (place, *place.parents):
            raise ValueError(f'--out {out} is in {source}, which holds the images: name another')
    if Path(out, UNFINISHED).is_dir():
        raise FileExistsError(f'--out {out} holds a run that was interrupted: name another folder')
    if os.path.lexists(out) and not (os.path.isdir(out) and not os.listdir(out)):
        raise FileExistsError(f'--out {out} is there and not empty: name another folder')


class Results:
    """A folder of results; use it as a context.

    All goes to a folder ``unfinished`` in it, and from there to its place at the end: whatever
    ends the run, what lies beside ``unfinished`` is complete. Nothing is kept in memory.

    Args:
        out (str): The folder.
        predictor (Predictor): Whose results come.
        source (str): The checkpoint, which results name.
        pictures (bool): Whether to draw.
    """

    def __init__(self, out: str, predictor: Predictor, source: str, pictures: bool = True) -> None:
        self.out = Path(out)
        self.count = 0
        self._folder = self.out / UNFINISHED
        self._predictor = predictor
        self._source = source
        self._pictures = pictures

    def __enter__(self) -> Results:
        self._made = not self.out.exists()
        self._folder.mkdir(parents=True)
        predictor = self._predictor
        self._writer: _Writer
        if predictor.kind == 'detector':
            info = dict(checkpoint=self._source, score_thr=predictor.score_thr)
            self._writer = _Detections(self._folder, predictor.classes, info)
        elif predictor.kind == 'segmenter':
            self._writer = _Maps(self._folder, predictor.classes)
        else:
            self._writer = _Table(self._folder, predictor.classes)
        return self

    def add(self, image: Image, found: Found) -> None:
        """Write what was found on an image."""
        self._writer.add(image, found)
        if self._pictures:
            classes, palette = self._predictor.classes, self._predictor.palette
            picture = draw(image.pixels, found, classes, palette)
            _write(self._folder / 'pictures' / f'{image.name}.jpg', picture)
        self.count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writer.close(complete=kind is None)
        if self.count == 0:
            shutil.rmtree(self.out if self._made else self._folder)
        elif kind is None:
            # Pictures first: where the predictions are, all is there.
            for name in ('pictures', *self._writer.names):
                if (self._folder / name).exists():
                    os.replace(self._folder / name, self.out / name)
            self._folder.rmdir()


class _Writer(Protocol):
    names: tuple[str, ...]

    def add(self, image: Image, found: Found) -> None:
        """Write what was found on an image."""

    def close(self, complete: bool) -> None:
        """Write what comes last, if all images are there."""


class _Detections:
    """COCO's format: a data set whose annotations have scores, which are a list of results."""

    names: tuple[str, ...] = ('predictions.json',)

    def __init__(self, folder: Path, classes: Sequence[str], info: dict[str, Any]) -> None:
        self._file = (folder / self.names[0]).open('w')
        # The list of images grows beside the list of annotations.
        self._images: IO[str] = tempfile.TemporaryFile('w+', dir=folder)
        self._count = [0, 0]
        categories = [dict(id=number, name=name) for number, name in enumerate(classes, 1)]
        start = f'"info": {json.dumps(info)},\n"categories": {json.dumps(categories)}'
        self._file.write(f'{{{start},\n"annotations": [')

    def add(self, image: Image, found: Found) -> None:
        """Write what was found on an image."""
        height, width = image.pixels.shape[:2]
        number = self._count[0] + 1
        entry = dict(id=number, file_name=image.file.file_name, height=height, width=width)
        if image.frame is not None:
            video = image.file.file_name
            entry.update(file_name=image.name, video=video, frame=image.frame)
        self._append(0, self._images, entry)
        assert found.boxes is not None and found.labels is not None
        for k, (left, top, right, bottom) in enumerate(found.boxes.tolist()):
            box = [round(value, 2) for value in (left, top, right - left, bottom - top)]
            entry = dict(
                id=self._count[1] + 1,
                image_id=number,
                category_id=int(found.labels[k]) + 1,
                bbox=box,
                score=round(float(found.scores[k]), 5),
                area=round(box[2] * box[3], 2),
                iscrowd=0,
            )
            if found.masks is not None:
                entry.update(_encoded(found.masks[k]))
            self._append(1, self._file, entry)

    def _append(self, which: int, file: IO[str], entry: dict[str, Any]) -> None:
        file.write((',\n' if self._count[which] else '\n') + json.dumps(entry))
        self._count[which] += 1

    def close(self, complete: bool) -> None:
        """Write the images after the annotations."""
        with self._file, self._images:
            if complete:
                self._file.write('\n],\n"images": [')
                self._images.seek(0)
                shutil.copyfileobj(self._images, self._file)
                self._file.write('\n]}\n')


class _Maps:
    """A PNG for each image: the number of a class for each pixel; their names."""

    names: tuple[str, ...] = ('maps', 'classes.txt')

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._folder = folder
        self._classes = classes

    def add(self, image: Image, found: Found) -> None:
        """Write what was found on an image."""
        assert found.labels is not None
        kind = np.uint8 if len(self._classes) <= 256 else np.uint16
        _write(self._folder / 'maps' / f'{image.name}.png', found.labels.astype(kind))

    def close(self, complete: bool) -> None:
        """Write the names."""
        if complete:
            text = ''.join(f'{name}\n' for name in self._classes)
            (self._folder / 'classes.txt').write_text(text, encoding='utf-8')


class _Table:
    """A line for each image: the best classes and their scores."""

    names: tuple[str, ...] = ('predictions.csv',)

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._classes = classes
        # A file's name may be of bytes that are no text.
        self._file = (folder / self.names[0]).open(
            'w', newline='', encoding='utf-8', errors='surrogateescape'
        )
        self._table = csv.writer(self._file)
        head = ['file', 'class', 'score']
        for place in range(2, min(BEST, len(classes)) + 1):
            head += [f'class_{place}', f'score_{place}']
        self._table.writerow(head)

    def add(self, image: Image, found: Found) -> None:
        """Write what was found on an image."""
        row = [image.file.file_name if image.frame is None else image.name]
        for label in found.scores.argsort()[::-1][:BEST]:
            row += [self._classes[label], f'{found.scores[label]:.5f}']
        self._table.writerow(row)

    def close(self, complete: bool) -> None:
        """Write what is left."""
        self._file.close()


def _encoded(mask: np.ndarray) -> dict[str, Any]:
    """A mask in run lengths, and its area."""
    from pycocotools import mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    area = int(coco_mask.area(encoded))
    size = [int(side) for side in encoded['size']]
    return dict(segmentation=dict(size=size, counts=encoded['counts'].decode()), area=area)


def _write(path: Path, pixels: np.ndarray) -> None:
    """Write an image; a full disk is an error, where cv2.imwrite would only return False."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, encoded = cv2.imencode(path.suffix, pixels)
    path.write_bytes(encoded.tobytes())
