from pathlib import Path

import cv2
import pytest
from sklearn.datasets import load_digits

from mmvitbackbones.datasets import make_digits
from mmvitbackbones.datasets.digit_scenes import CLASSES, SPLITS
from mmvitbackbones.datasets.digits import SIDE
from mmvitbackbones.datasets.once import make_once


def test_each_handwritten_digit_is_one_image_of_its_class(tmp_path):
    root = str(tmp_path / 'digits')
    assert make_digits(root) == root
    images = [path for split in SPLITS for path in Path(root, split).glob('*/*.png')]
    assert sorted(path.stem for path in images) == [f'{index:04d}' for index in range(1797)]
    labels = load_digits().target
    for path in images:
        label = labels[int(path.stem)]
        assert path.parent.name == f'{label}_{CLASSES[label]}'
    assert {path.parent.parent.name for path in images} == set(SPLITS)
    image = cv2.imread(str(images[0]), cv2.IMREAD_UNCHANGED)
    assert image.shape == (SIDE, SIDE) and image.min() == 0 and image.max() == 255
    written = images[0].stat().st_mtime_ns
    assert make_digits(root) == root and images[0].stat().st_mtime_ns == written


def test_a_folder_that_cannot_be_put_in_its_place(tmp_path):
    """And no other process has made it."""
    root = tmp_path / 'digits'
    with pytest.raises(NotADirectoryError):
        make_once(str(root), {}, lambda folder: root.symlink_to('nowhere'), 'digits')
    assert list(tmp_path.iterdir()) == [root]
