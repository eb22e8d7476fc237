"""Real handwritten digits one by one: images to classify that need no download."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from .digit_scenes import CLASSES, SPLITS, load_glyphs, write_image
from .once import make_once

SIDE = 64  # pixels


def make_digits(root: str) -> str:
    """Write the demo data set for classifiers, unless it is there already.

    The images, 64 x 64, lie in ``{training,validation}/0_zero/0010.png`` and so on, numbered as in
    scikit-learn's ``load_digits``. No handwritten digit is in both splits.

    Args:
        root: The folder to write.

    Returns:
        ``root``.

    Raises:
        FileExistsError: If ``root`` holds something else; nothing of it is touched.
        ImportError: If scikit-learn is not installed.
    """

    def write(folder: Path) -> None:
        for split in SPLITS:
            for glyph in load_glyphs(split):
                image = cv2.resize(glyph.ink, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
                image = np.clip(255 * image, 0, 255).astype(np.uint8)
                place = folder / split / f'{glyph.label}_{CLASSES[glyph.label]}'
                place.mkdir(parents=True, exist_ok=True)
                write_image(place / f'{glyph.index:04d}.png', image)

    return make_once(root, dict(format=1, side=SIDE), write, 'digits')
