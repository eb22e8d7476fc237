"""Sizes of images, turned as their EXIF says."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps

_ORIENTATION = 0x0112  # EXIF's tag; from 5 on, width and height change places


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as ``mmcv.imread`` reads it.

    That turns images as EXIF says, in the 'color' mode that the toolboxes read images in, and the
    boxes have to be those of the turned image. Only the head of the file is read.

    Args:
        path: The image.

    Raises:
        ValueError: If it is no image.
    """
    try:
        with Image.open(path) as image:
            if image.format == 'TIFF':
                # Some versions of PIL turn the size of a TIFF as it is opened, others do not:
                # it is certain only once the image is decoded.
                return ImageOps.exif_transpose(image).size
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f'{path} cannot be read as an image ({error}): remove it') from None
    return (height, width) if turned else (width, height)
