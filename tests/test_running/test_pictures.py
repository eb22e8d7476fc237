"""Pictures are legible at any size."""

import numpy as np
import pytest

from mmvitbackbones.running.pictures import _Picture, draw
from mmvitbackbones.running.predicting import Found

CLASSES = ['Bär', 'a name that is longer than some pictures are wide ' * 9, 'c']
KINDS = ['boxes', 'masks', 'map', 'scores']


def found(kind, height, width):
    boxes = np.array([[0.1, 0.1, 0.5, 0.5], [0, 0, 1, 1], [0.4, 0.1, 0.9, 0.3]])
    masks = np.zeros((3, height, width), bool)
    masks[0, height // 4 :, : width // 2 + 1] = True
    if kind == 'scores':
        return Found(np.array([0.2, 0.7, 0.1]))
    if kind == 'map':
        return Found(np.empty(0), masks[0].astype(np.int64))
    boxes *= [width, height, width, height]
    masks = masks if kind == 'masks' else None
    return Found(np.array([0.9, 0.5, 0.4]), np.arange(3), boxes, masks)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    'size', [(40, 40), (40, 1000), (1000, 40), (1, 1), (1500, 2000), (480, 640)]
)
def test_every_kind_at_every_size(kind, size):
    """The image is left as it was; a small one is enlarged, and the words are large enough."""
    pixels = np.full((*size, 3), 90, np.uint8)
    picture = draw(pixels, found(kind, *size), CLASSES)
    assert (pixels == 90).all()
    assert picture.dtype == np.uint8 and min(picture.shape[:2]) >= 90
    assert max(picture.shape[:2]) >= 480
    if min(size) >= 480:
        assert picture.shape == pixels.shape
    assert (picture != 90).any()


@pytest.mark.parametrize('side, letters', [(40, 12), (640, 12), (1500, 25), (4000, 67)])
def test_letters_and_lines_grow_with_the_image(side, letters):
    picture = _Picture(np.zeros((side, side, 3), np.uint8))
    assert picture._font.size == letters
    assert picture.line == max(2, round(letters / 6))


@pytest.mark.parametrize(
    'pixels',
    [
        np.zeros((50, 60), np.uint8),
        np.zeros((50, 60, 4), np.uint8),
        np.ones((50, 60, 3), np.uint16),
    ],
)
def test_images_that_are_not_bgr(pixels):
    assert draw(pixels, found('boxes', 50, 60), CLASSES).shape == (400, 480, 3)


def test_colours():
    """BGR in, BGR out; a data set's colours are RGB."""
    image = np.zeros((500, 500, 3), np.uint8)
    image[..., 0] = 200
    picture = draw(
        image, Found(np.empty(0), np.ones((500, 500), int)), 'ab', [(0, 0, 0), (100, 0, 0)]
    )
    assert picture[0, 0].tolist() == [100, 0, 50]


def test_nothing_found():
    image = np.full((500, 500, 3), 7, np.uint8)
    nothing = Found(np.empty(0), np.empty(0, int), np.empty((0, 4)), np.empty((0, 500, 500), bool))
    assert (draw(image, nothing, CLASSES) == 7).all()
