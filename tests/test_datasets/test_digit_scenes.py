import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mmvitbackbones.datasets import digit_scenes
from mmvitbackbones.datasets.digit_scenes import (
    CLASSES,
    DIGIT_SIDE,
    MIN_VISIBLE,
    NUM_DIGITS,
    PALETTE,
    SEMANTIC_CLASSES,
    SPLITS,
    draw_scene,
    load_glyphs,
    make_digit_scenes,
)

COUNTS = dict(training=8, validation=3)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_digit_scenes(
        str(tmp_path_factory.mktemp('data') / 'demo'), COUNTS['training'], COUNTS['validation']
    )


@pytest.fixture(params=SPLITS)
def split(request):
    return request.param


def contents(root):
    return {p.relative_to(root): p.read_bytes() for p in Path(root).rglob('*') if p.is_file()}


def open_coco(root, split):
    return COCO(str(Path(root, 'annotations', f'instances_{split}.json')))


def read_map(root, split, image):
    path = Path(root, 'annotations', split, image['file_name']).with_suffix('.png')
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_equal_arguments_give_equal_files(root, tmp_path):
    again = make_digit_scenes(str(tmp_path / 'again'), COUNTS['training'], COUNTS['validation'])
    other = make_digit_scenes(str(tmp_path / 'other'), 1, 1, seed=1)
    first = contents(root)
    assert len(first) == 2 * sum(COUNTS.values()) + len(SPLITS) + 1
    assert contents(again) == first
    image = Path('images', 'training', '000000.jpg')
    assert contents(other)[image] != first[image]


def test_several_processes_draw_the_same(root, tmp_path, monkeypatch):
    monkeypatch.setattr(digit_scenes, 'SCENES_A_PROCESS', 1)
    again = make_digit_scenes(str(tmp_path / 'again'), COUNTS['training'], COUNTS['validation'])
    assert contents(again) == contents(root)


def test_what_fails_in_a_process_ends_all(tmp_path, monkeypatch):
    monkeypatch.setattr(digit_scenes, 'SCENES_A_PROCESS', 1)
    monkeypatch.setattr(digit_scenes, '_annotation', None)  # processes are forked
    with pytest.raises(TypeError, match='not callable'):
        make_digit_scenes(str(tmp_path / 'demo'), 4, 4)
    assert list(tmp_path.iterdir()) == []


def test_a_scene_does_not_depend_on_how_many_there_are(root, tmp_path):
    fewer = contents(make_digit_scenes(str(tmp_path / 'fewer'), 2, 1))
    images = [path for path in fewer if path.suffix in ('.jpg', '.png')]
    assert len(images) == 6
    assert all(fewer[path] == contents(root)[path] for path in images)


def test_masks_boxes_and_semantic_maps_agree(root, split):
    coco = open_coco(root, split)
    assert [c['name'] for c in coco.loadCats(range(1, 11))] == list(CLASSES)
    assert len(coco.imgs) == COUNTS[split]
    assert 0 not in coco.imgs and 0 not in coco.anns
    for image in coco.imgs.values():
        expected = np.ones((image['height'], image['width']), np.uint8)
        annotations = coco.imgToAnns[image['id']]
        few, many = NUM_DIGITS[split]
        assert few <= len(annotations) <= many
        for annotation in annotations:
            mask = coco.annToMask(annotation)
            assert (expected[mask == 1] == 1).all(), 'visible parts never overlap'
            expected[mask == 1] = annotation['category_id'] + 1
            assert annotation['iscrowd'] == 0
            assert annotation['area'] == mask.sum()
            rows, columns = np.nonzero(mask)
            left, top, width, height = annotation['bbox']
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
        np.testing.assert_array_equal(read_map(root, split, image), expected)
        photo = cv2.imread(str(Path(root, 'images', split, image['file_name'])))
        assert photo.shape == (*expected.shape, 3)


def test_labels_are_those_of_the_handwritten_digits(root, split):
    labels = {glyph.index: glyph.label for glyph in load_glyphs(split)}
    for annotation in open_coco(root, split).anns.values():
        assert annotation['category_id'] == labels[annotation['digit_index']] + 1


def test_splits_share_no_handwritten_digit():
    training, validation = (load_glyphs(split) for split in SPLITS)
    indices = [glyph.index for glyph in training + validation]
    assert sorted(indices) == list(range(1797))
    assert len(validation) > 300
    assert np.bincount([glyph.label for glyph in validation]).min() >= 30
    drawings = [{glyph.ink.tobytes() for glyph in glyphs} for glyphs in (training, validation)]
    assert drawings[0].isdisjoint(drawings[1]), 'no drawing occurs twice under two indices'


def test_sizes_and_visibility_stay_in_their_bounds(split):
    glyphs = load_glyphs(split)
    few, many = NUM_DIGITS[split]
    sides, shapes, counts, overlaps = [], set(), set(), 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        image, owner, placed = draw_scene(glyphs, rng, num_digits=NUM_DIGITS[split])
        assert image.dtype == np.uint8 and image.shape == (*owner.shape, 3)
        assert all(224 <= side <= 288 for side in owner.shape)
        shapes.add(owner.shape)
        counts.add(len(placed))
        boxes = []
        for number in range(1, len(placed) + 1):
            visible = (owner == number).astype(np.uint8)
            boxes.append(cv2.boundingRect(visible))
            sides.append(max(boxes[-1][2:]))
            left, top, width, height = boxes[-1]
            inside = owner[top : top + height, left : left + width]
            overlaps += bool(((inside != 0) & (inside != number)).any())
        assert owner.max() == len(placed)
    assert DIGIT_SIDE[0] <= min(sides) < 30 and 100 < max(sides) <= DIGIT_SIDE[1]
    assert len(shapes) > 20
    assert counts == set(range(few, many + 1))
    assert overlaps > 20


def test_digits_stay_visible_and_stand_out():
    glyphs = load_glyphs('training')
    for seed in range(10):
        image, owner, placed = draw_scene(glyphs, np.random.default_rng(seed))
        for number in range(1, len(placed) + 1):
            visible = owner == number
            near = cv2.dilate(visible.astype(np.uint8), np.ones((7, 7))).astype(bool)
            ring = near & ~visible & (owner == 0)
            difference = np.median(image[visible], axis=0) - np.median(image[ring], axis=0)
            assert np.linalg.norm(difference) > 60


def test_a_digit_is_never_covered_too_far():
    def owner_with(pixels):
        owner = np.zeros((40, 40), np.uint8)
        owner[:30].flat[:pixels] = 1
        return owner

    enough = int(MIN_VISIBLE * 1200)
    assert digit_scenes._all_visible(owner_with(enough), [1], [1200], 110)
    assert not digit_scenes._all_visible(owner_with(enough - 1), [1], [1200], 110)
    assert not digit_scenes._all_visible(owner_with(1200), [1], [1200], 39), 'too large'
    assert not digit_scenes._all_visible(np.eye(23, dtype=np.uint8), [1], [23], 110), 'too small'


def test_second_call_leaves_the_files_alone(root, capsys):
    def stamps():
        return {path: path.stat().st_mtime_ns for path in Path(root).rglob('*')}

    before = stamps()
    assert make_digit_scenes(root, COUNTS['training'], COUNTS['validation']) == root
    assert stamps() == before
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('change', [dict(num_train=9), dict(num_val=2), dict(size=200)])
def test_other_arguments_in_the_same_root_are_refused(root, change):
    before = contents(root)
    arguments = dict(num_train=COUNTS['training'], num_val=COUNTS['validation'])
    with pytest.raises(FileExistsError, match='other digit scenes') as error:
        make_digit_scenes(root, **{**arguments, **change})
    assert root in str(error.value)
    assert contents(root) == before


def test_folders_and_files_of_others_are_refused(tmp_path):
    (tmp_path / 'notes.txt').write_text('mine')
    for taken in (tmp_path, tmp_path / 'notes.txt'):
        with pytest.raises(FileExistsError, match='does not hold digit scenes') as error:
            make_digit_scenes(str(taken), 1, 1)
        assert str(taken) in str(error.value)
    assert contents(tmp_path) == {Path('notes.txt'): b'mine'}


def test_an_empty_folder_is_filled(tmp_path):
    make_digit_scenes(str(tmp_path), 1, 1)
    assert (tmp_path / 'meta.json').is_file()


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError])
def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch, error):
    written = []

    def fail_midway(path, image):
        written.append(path)
        if len(written) == 5:
            raise error
        write(path, image)

    write = digit_scenes.write_image
    root = tmp_path / 'demo'
    with monkeypatch.context() as patch:
        patch.setattr(digit_scenes, 'write_image', fail_midway)
        with pytest.raises(error):
            make_digit_scenes(str(root), 3, 1)
    assert written[0].parent.parent.parent.name == 'demo' and list(tmp_path.iterdir()) == []
    make_digit_scenes(str(root), 3, 1)
    assert json.loads((root / 'meta.json').read_text())['num_train'] == 3


@pytest.mark.parametrize('same', [True, False])
def test_another_process_may_finish_first(tmp_path, monkeypatch, same):
    root = str(tmp_path / 'demo')
    write_split = digit_scenes._write_split

    def finish_elsewhere_first(folder, split, *rest):
        write_split(folder, split, *rest)
        if split == SPLITS[-1]:
            monkeypatch.setattr(digit_scenes, '_write_split', write_split)
            make_digit_scenes(root, 2 if same else 3, 1)

    monkeypatch.setattr(digit_scenes, '_write_split', finish_elsewhere_first)
    if same:
        assert make_digit_scenes(root, 2, 1) == root
    else:
        with pytest.raises(FileExistsError, match='other digit scenes'):
            make_digit_scenes(root, 2, 1)
    assert [path.name for path in tmp_path.iterdir()] == ['demo']
    assert len(list(Path(root, 'images', 'training').iterdir())) == (2 if same else 3)


@pytest.mark.parametrize(
    'bad', [dict(num_train=0), dict(num_val=0), dict(size=100), dict(size=256.0), dict(seed=-1)]
)
def test_bad_numbers_are_named(tmp_path, bad):
    with pytest.raises(ValueError, match=f'{next(iter(bad))} must be an integer of at least'):
        make_digit_scenes(str(tmp_path / 'demo'), **bad)
    assert list(tmp_path.iterdir()) == []


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'training' or 'validation', got 'train'"):
        load_glyphs('train')


@pytest.mark.parametrize(
    'module, package', [('sklearn.datasets', 'scikit-learn'), ('pycocotools', 'pycocotools')]
)
def test_packages_that_are_missing_are_named(tmp_path, monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f'pip install {package}'):
        make_digit_scenes(str(tmp_path / 'demo'), 1, 1)
    assert list(tmp_path.iterdir()) == []


def test_class_names_and_colours():
    assert len(CLASSES) == len(set(CLASSES)) == len(PALETTE) == 10
    assert SEMANTIC_CLASSES == ('background', *CLASSES)
    colours = np.array(PALETTE)
    distances = np.linalg.norm(colours[:, None] - colours, axis=-1) + 1000 * np.eye(10)
    assert colours.min() >= 0 and colours.max() <= 255 and distances.min() > 80
