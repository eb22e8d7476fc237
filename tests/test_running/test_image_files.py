"""Images to predict on are found and named once, and read when they are asked for."""

import itertools
import os

import cv2
import numpy as np
import pytest

from mmvitbackbones.running.image_files import count_images, find_images, read_images


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(*places):
    return [file.name for file in find_images([*map(str, places)])[0]]


def test_places(tmp_path, monkeypatch):
    """Files, folders, patterns; hidden files and texts are none; nothing comes twice."""
    touch(tmp_path, 'a/1.jpg', 'a/Bär 2.PNG', 'a/b/1.jpg', 'a/.hidden.jpg', 'a/.cache/1.jpg')
    touch(tmp_path, 'a/notes.txt', 'a/clip.avi', 'c/1.jpg', 'c/odd[1].jpg', 'empty/notes.txt')
    a, c = tmp_path / 'a', tmp_path / 'c'
    assert names(a) == ['1', 'Bär 2', 'b/1']
    assert names(a / '*') == ['1', 'Bär 2', 'b/1', 'clip']
    assert names(tmp_path / '**' / '1.jpg') == ['a/1', 'a/b/1', 'c/1']
    assert names(c / 'odd[1].jpg') == ['odd[1]']
    assert names(c, a) == names(a, c) == ['a/1', 'a/Bär 2', 'a/b/1', 'c/1', 'c/odd[1]']
    monkeypatch.chdir(a)
    assert names('1.jpg', '.', a / 'b', './1.jpg') == ['1', 'Bär 2', 'b/1']
    files, folders = find_images(['.', '1.jpg'])
    assert folders == [str(a)] and [file.file_name for file in files][1] == 'Bär 2.PNG'
    for place in ('nothing.jpg', '*.webp', '../empty', '../empty/*'):
        with pytest.raises(FileNotFoundError, match='there is no image'):
            find_images([place])


def test_no_two_results_have_one_name(tmp_path):
    touch(tmp_path, 'a.jpg', 'a.png', 'a.jpg.png', 'b.avi', 'b.jpg', 'c.avi', 'c_000001.jpg')
    found = {file.file_name: file.name for file in find_images([str(tmp_path / '*')])[0]}
    assert found == {
        'a.jpg': 'a',
        'a.jpg.png': 'a.jpg',
        'a.png': 'a.png',
        'b.avi': 'b',
        'b.jpg': 'b.jpg',
        'c.avi': 'c.avi',  # as the frames of c would be c_000000, c_000001, ...
        'c_000001.jpg': 'c_000001',
    }


def test_links_that_lead_back(tmp_path):
    touch(tmp_path, 'a/1.jpg', 'elsewhere/2.jpg')
    (tmp_path / 'a' / 'up').symlink_to(tmp_path / 'a')
    (tmp_path / 'a' / 'linked').symlink_to(tmp_path / 'elsewhere')
    assert names(tmp_path / 'a') == ['1', 'linked/2']


def test_a_folder_that_cannot_be_read(tmp_path):
    touch(tmp_path, 'a/1.jpg', 'locked/2.jpg')
    (tmp_path / 'locked').chmod(0)
    try:
        if os.access(tmp_path / 'locked', os.R_OK):
            pytest.skip('whoever runs the tests may read everything')
        with pytest.raises(PermissionError):
            find_images([str(tmp_path)])
    finally:
        (tmp_path / 'locked').chmod(0o700)


def test_reading_waits(tmp_path):
    """Images and frames, one by one; what cannot be read is named."""
    for number in range(3):
        cv2.imwrite(str(tmp_path / f'{number}.png'), np.full((4, 5, 3), number, np.uint8))
    video = cv2.VideoWriter(str(tmp_path / 'a.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 5, (32, 24))
    for number in range(4):
        video.write(np.full((24, 32, 3), 50 * number, np.uint8))
    video.release()
    (tmp_path / 'bad.jpg').write_bytes(b'no image')
    (tmp_path / 'bad.mp4').write_bytes(b'no video')

    files, _ = find_images([str(tmp_path / '*')])
    read, bad = [], {}

    def read_one(path):
        read.append(path)
        pixels = cv2.imread(path)
        if pixels is None:
            raise ValueError('no image\nwith more to say')
        return pixels

    images = read_images(files, read_one, lambda file, why: bad.setdefault(file.file_name, why))
    assert read == []
    first = next(images)
    assert first.name == '0' and len(read) == 1
    rest = [*itertools.chain(images)]
    assert [image.name for image in rest] == ['1', '2', *(f'a_{k:06d}' for k in range(4))]
    assert [image.frame for image in rest[2:]] == [0, 1, 2, 3]
    means = [image.pixels.mean() for image in rest[2:]]
    np.testing.assert_allclose(means, [0, 50, 100, 150], atol=3)
    assert bad == {'bad.jpg': 'no image', 'bad.mp4': 'no frame of this video can be read'}
    assert count_images(file for file in files if 'bad' not in file.name) == 7
