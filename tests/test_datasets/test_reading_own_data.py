import codecs
import contextlib
import io
import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import own_data_folders
import pytest
from own_data_folders import (
    CLASSES,
    FOLDERS,
    SEMANTIC_CLASSES,
    SIZES,
    make_class_folders,
    make_coco,
    make_coco_export,
    make_maps,
    make_yolo,
)
from PIL import Image
from pycocotools.coco import COCO

from mmvitbackbones.datasets.exif import image_size
from mmvitbackbones.datasets.own_data import maps, read_own_data
from mmvitbackbones.datasets.own_data.common import make_palette


def make_polygons(folder, **counts):
    return make_yolo(folder, polygons=True, **counts)


DETECTION = [make_coco, make_coco_export, make_yolo, make_polygons]
OTHERS = [make_maps, make_class_folders]
LAYOUTS = {
    make_coco: 'COCO (annotations/instances_train2017.json)',
    make_coco_export: 'COCO export (train/_annotations.coco.json)',
    make_yolo: 'YOLO labels (data.yaml)',
    make_polygons: 'YOLO labels (data.yaml)',
    make_maps: 'images and masks (classes.txt)',
    make_class_folders: 'folders of classes (train/*/)',
}
COCO_TRAIN = 'annotations/instances_train2017.json'
COCO_VAL = 'annotations/instances_val2017.json'
EXPORT_TRAIN = 'train/_annotations.coco.json'


@pytest.fixture
def folder(tmp_path):
    return tmp_path / 'meine Daten'


@pytest.fixture
def work_dir(tmp_path):
    return tmp_path / 'work'


@pytest.fixture(scope='session')
def made(tmp_path_factory):
    """Makes each data set once."""
    root, drawn = tmp_path_factory.mktemp('own_data'), {}

    def make_copy(make, folder):
        if make not in drawn:
            drawn[make] = make(root / make.__name__)
        shutil.copytree(root / make.__name__, folder)
        return drawn[make]

    return make_copy


def contents(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in Path(folder).rglob('*')}


def open_coco(path):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_text(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize('make', DETECTION)
def test_a_detection_set_is_read_as_it_was_drawn(make, made, folder, work_dir):
    drawn = made(make, folder)
    before = contents(folder)
    data = read_own_data(folder, work_dir)
    assert contents(folder) == before
    assert (data.folder, data.layout, data.task) == (folder, LAYOUTS[make], 'detection')
    assert data.classes == CLASSES and data.masks == (make is not make_yolo)
    assert len(set(data.palette)) == 3
    assert {name: split.count for name, split in data.splits.items()} == dict(train=6, val=3)
    # What the toolboxes read rightly is used as it is.
    used = {split.annotations.is_relative_to(folder) for split in data.splits.values()}
    assert used == {make is make_coco}
    for name, split in data.splits.items():
        check_coco(split, drawn[name], data.masks)


def check_coco(split, pictures, masks):
    coco = open_coco(split.annotations)
    names = {number: category['name'] for number, category in coco.cats.items()}
    images = {image['file_name']: image for image in coco.imgs.values()}
    assert images.keys() == {picture.name for picture in pictures}
    assert 0 not in coco.anns
    for picture in pictures:
        image = images[picture.name]
        assert (split.images / picture.name).is_file()
        assert (image['height'], image['width']) == picture.owner.shape
        found = coco.imgToAnns[image['id']]
        assert len(found) == len(picture.objects)
        for number, (annotation, each) in enumerate(zip(found, picture.objects), 1):
            assert names[annotation['category_id']] == CLASSES[each.label]
            left, top, width, height = annotation['bbox']
            ends = [left, top, left + width, top + height]
            x, y, w, h = each.box
            np.testing.assert_allclose(ends, [x, y, x + w, y + h], atol=0.501)
            assert annotation['iscrowd'] == each.crowd
            if masks:
                mask = coco.annToMask(annotation)
                seen = picture.owner == number
                assert (mask & seen).sum() > 0.75 * (mask | seen).sum()
            area = (picture.owner == number).sum() if masks else w * h
            assert annotation['area'] == pytest.approx(area, rel=0.25)


@pytest.mark.parametrize('make', DETECTION)
def test_mmdetection_reads_it(make, made, folder, work_dir):
    CocoDataset = pytest.importorskip('mmdet.datasets').CocoDataset
    drawn = made(make, folder)
    data = read_own_data(folder, work_dir)
    for name, split in data.splits.items():
        with contextlib.redirect_stdout(io.StringIO()):
            dataset = CocoDataset(
                ann_file=str(split.annotations),
                data_prefix=dict(img=f'{split.images}/'),
                metainfo=dict(classes=data.classes, palette=data.palette),
            )
        assert len(dataset) == split.count
        pictures = {picture.name: picture for picture in drawn[name]}
        for info in (dataset.get_data_info(index) for index in range(len(dataset))):
            picture = pictures[Path(info['img_path']).name]
            assert Path(info['img_path']).is_file()
            labels = [instance['bbox_label'] for instance in info['instances']]
            assert labels == [each.label for each in picture.objects]
            ignored = [instance['ignore_flag'] for instance in info['instances']]
            assert ignored == [each.crowd for each in picture.objects]


def test_images_and_masks(made, folder, work_dir):
    made(make_maps, folder)
    before = contents(folder)
    data = read_own_data(folder, work_dir)
    assert contents(folder) == before and not work_dir.exists()
    assert (data.layout, data.task, data.masks) == (LAYOUTS[make_maps], 'segmentation', False)
    assert data.classes == SEMANTIC_CLASSES and len(set(data.palette)) == 4
    assert {name: split.count for name, split in data.splits.items()} == dict(train=6, val=3)
    train = data.splits['train']
    assert (train.images, train.annotations) == (folder / 'images/train', folder / 'masks/train')
    values = np.unique([np.unique(np.asarray(Image.open(p)))[-1] for p in folder.rglob('*.png')])
    assert values[-1] == 255
    assert train.short_side == np.median([min(SIZES[n % len(SIZES)]) for n in range(6)])


@pytest.mark.parametrize('make', LAYOUTS)
def test_a_test_needs_nothing_to_train_on(make, made, folder, work_dir):
    made(make, folder)
    for path in [*folder.glob('**/*train*')]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    assert {*read_own_data(folder, work_dir, training=False).splits} == {'val'}
    with pytest.raises(FileNotFoundError, match='nothing to train on'):
        read_own_data(folder, work_dir)


def test_mmsegmentation_reads_it(made, folder, work_dir):
    BaseSegDataset = pytest.importorskip('mmseg.datasets').BaseSegDataset
    made(make_maps, folder)
    data = read_own_data(folder, work_dir)
    split = data.splits['train']
    dataset = BaseSegDataset(
        data_prefix=dict(img_path=str(split.images), seg_map_path=str(split.annotations)),
        metainfo=dict(classes=data.classes, palette=data.palette),
    )
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert len(infos) == split.count
    assert all(Path(info['seg_map_path']).is_file() for info in infos)


def test_folders_of_classes(made, folder, work_dir):
    counts = made(make_class_folders, folder)
    before = contents(folder)
    data = read_own_data(folder, work_dir)
    assert contents(folder) == before and not work_dir.exists()
    assert (data.layout, data.task) == (LAYOUTS[make_class_folders], 'classification')
    assert data.classes == FOLDERS and len(set(data.palette)) == 5
    assert {name: split.count for name, split in data.splits.items()} == counts
    assert data.splits['val'].images == folder / 'val' and data.splits['val'].annotations is None


def test_mmpretrain_reads_it(made, folder, work_dir):
    CustomDataset = pytest.importorskip('mmpretrain.datasets').CustomDataset
    made(make_class_folders, folder)
    data = read_own_data(folder, work_dir)
    split = data.splits['train']
    dataset = CustomDataset(
        data_prefix=str(split.images), metainfo=dict(classes=data.classes), pipeline=[]
    )
    assert len(dataset) == split.count
    for info in (dataset.get_data_info(index) for index in range(len(dataset))):
        assert Path(info['img_path']).parent.name == data.classes[info['gt_label']]


@pytest.mark.parametrize('make', [*DETECTION, *OTHERS])
def test_a_test_split(make, folder, work_dir):
    make(folder, train=2, val=2, test=2)
    data = read_own_data(folder, work_dir)
    assert list(data.splits) == ['train', 'val', 'test']
    assert data.splits['test'].count == data.splits['val'].count
    if data.task == 'detection':
        for place in (folder / 'valid', folder / 'val2017'):
            shutil.rmtree(place, ignore_errors=True)
        Path(folder, COCO_VAL).unlink(missing_ok=True)
    else:
        for place in (folder / 'val', folder / 'images/val'):
            shutil.rmtree(place, ignore_errors=True)
    data = read_own_data(folder, work_dir)
    assert list(data.splits) == ['train', 'val']
    assert data.splits['val'].images.relative_to(folder).as_posix().replace('2017', '') in (
        'test',
        'test/images',
        'images/test',
    )
    assert data.layout == f'{LAYOUTS[make]}; no val, so test is used as val'


@pytest.mark.parametrize('make', [make_coco, make_coco_export, make_yolo])
def test_a_test_split_without_annotations_is_left_out(make, folder, work_dir):
    make(folder, train=2, val=2, test=2)
    if make is make_yolo:
        shutil.rmtree(folder / 'test/labels')
    else:
        path = next(folder.glob('**/*test*/_*.json'), folder / COCO_VAL.replace('val', 'test'))
        change_json(path, lambda content: content.update(annotations=[]))
    data = read_own_data(folder, work_dir)
    assert list(data.splits) == ['train', 'val']
    assert data.layout == f'{LAYOUTS[make]}; test is left out, as it has no annotations'


@pytest.mark.parametrize(
    'images', ['images/train2017', 'images/train', 'train', 'training', 'images', '.']
)
def test_where_coco_has_its_images(images, made, folder, work_dir):
    made(make_coco, folder)
    shutil.copytree(folder / 'train2017', folder / images, dirs_exist_ok=True)
    shutil.rmtree(folder / 'train2017')
    split = read_own_data(folder, work_dir).splits['train']
    assert split.images == folder / images and split.annotations == folder / COCO_TRAIN


def test_coco_names_images_with_their_folder(made, folder, work_dir):
    made(make_coco, folder)

    def change(content):
        for image in content['images']:
            image['file_name'] = f'train2017/{image["file_name"]}'

    change_json(folder / COCO_TRAIN, change)
    assert read_own_data(folder, work_dir).splits['train'].images == folder


def reverse_categories(content):
    content['categories'].reverse()


def drop_a_category(content):
    content['categories'] = [c for c in content['categories'] if c['name'] != CLASSES[0]]
    numbers = {category['id'] for category in content['categories']}
    content['annotations'] = [a for a in content['annotations'] if a['category_id'] in numbers]


def repeat_a_name(content):
    content['categories'].insert(0, dict(id=99, name=CLASSES[2]))


@pytest.mark.parametrize('change', [reverse_categories, drop_a_category, repeat_a_name])
@pytest.mark.parametrize('split', ['train', 'val'])
def test_mmdetection_gets_the_same_numbers_for_classes_in_each_split(
    change, split, made, folder, work_dir
):
    """It numbers them in the order of each file's categories."""
    drawn = made(make_coco, folder)
    change_json(folder / f'annotations/instances_{split}2017.json', change)
    data = read_own_data(folder, work_dir)
    assert data.classes == CLASSES
    for name, part in data.splits.items():
        coco = open_coco(part.annotations)
        assert [coco.cats[i]['name'] for i in coco.getCatIds(data.classes)] == list(data.classes)
        if change is not drop_a_category:
            check_coco(part, drawn[name], masks=True)
    written = [part.annotations.is_relative_to(work_dir) for part in data.splits.values()]
    assert any(written) and not all(written)


def forget_sizes(content):
    for image in content['images']:
        del image['width'], image['height']


def forget_areas(content):
    for annotation in content['annotations']:
        annotation['area'] = 0


def forget_crowds(content):
    for annotation in content['annotations']:
        if not annotation.pop('iscrowd'):
            del annotation['id']


def forget_masks_of_crowds(content):
    for annotation in content['annotations']:
        if annotation['iscrowd']:
            annotation['segmentation'] = []


@pytest.mark.parametrize(
    'change', [forget_sizes, forget_areas, forget_crowds, forget_masks_of_crowds]
)
def test_what_json_lacks_is_added(change, made, folder, work_dir):
    made(make_coco, folder)
    change_json(folder / COCO_TRAIN, change)
    before = contents(folder)
    data = read_own_data(folder, work_dir)
    assert contents(folder) == before and data.masks
    coco = open_coco(data.splits['train'].annotations)
    for image in coco.imgs.values():
        assert image_size(folder / 'train2017' / image['file_name']) == (
            image['width'],
            image['height'],
        )
    assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))
    for annotation in coco.anns.values():
        assert annotation['area'] > 0 and annotation['iscrowd'] in (0, 1)
        assert coco.annToMask(annotation).any()


def test_json_of_windows_and_names_of_a_mac(made, folder, work_dir):
    drawn = made(make_coco, folder)
    path = folder / COCO_TRAIN
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    for image in (folder / 'train2017').iterdir():
        image.rename(image.with_name(unicodedata.normalize('NFD', image.name)))
    split = read_own_data(folder, work_dir).splits['train']
    coco = open_coco(split.annotations)
    assert split.count == len(drawn['train']) == len(coco.imgs)
    assert all((split.images / image['file_name']).is_file() for image in coco.imgs.values())


@pytest.mark.parametrize('path', [COCO_TRAIN, COCO_VAL])
def test_boxes_without_masks(path, made, folder, work_dir):
    made(make_coco, folder)
    change_json(folder / path, lambda content: content['annotations'][0].pop('segmentation'))
    assert not read_own_data(folder, work_dir).masks


def test_boxes_and_polygons_in_one_file_of_labels(made, folder, work_dir):
    made(make_polygons, folder)
    path = sorted((folder / 'train/labels').iterdir())[0]
    path.write_text(path.read_text() + '\n\n1 0.5 0.5 0.25 0.5\n')
    data = read_own_data(folder, work_dir)
    coco = open_coco(data.splits['train'].annotations)
    assert not data.masks
    assert sum('segmentation' not in annotation for annotation in coco.anns.values()) == 1


def test_labels_are_read_anew_and_clipped(made, folder, work_dir):
    made(make_yolo, folder)
    read_own_data(folder, work_dir)
    image = sorted((folder / 'valid/images').iterdir())[0]
    labels = folder / 'valid/labels' / f'{image.stem}.txt'
    labels.write_text('2 1.0 0.5 0.5 1.5\n0 -0.1 0.2 0.5 0.2 0.5 1.3\n')
    coco = open_coco(read_own_data(folder, work_dir).splits['val'].annotations)
    width, height = image_size(image)
    (number,) = [i for i, row in coco.imgs.items() if row['file_name'] == image.name]
    box, polygon = coco.imgToAnns[number]
    np.testing.assert_allclose(box['bbox'], [0.75 * width, 0, width / 4, height], atol=0.001)
    x, y = 0.5 * width, 0.2 * height
    np.testing.assert_allclose(polygon['segmentation'], [[0, y, x, y, x, height]], atol=0.001)
    np.testing.assert_allclose(polygon['bbox'], [0, y, x, height - y], atol=0.002)
    assert polygon['area'] == pytest.approx(x * (height - y) / 2, abs=0.1)
    assert not list(work_dir.rglob('.*')), 'nothing unfinished is left'


NAMES = ', '.join(CLASSES)


@pytest.mark.parametrize(
    'text',
    [
        'path: .\ntrain: train/images\nval: valid/images\n',
        'path: ../datasets/mine\ntrain: ./train/images\nval: [valid/images]\n',
        'path: /content/mine\ntrain: /content/mine/train/images\nval: /content/mine/valid/images\n',
        'train: C:\\mine\\train\\images\nvalid: ..\\valid\\images\ntest:\n',
        'train: train\nval: valid/images/\ntest: test/images\n',
    ],
)
@pytest.mark.parametrize(
    'names', ['names: {2: dog, 0: Straßenbahn, 1: traffic light}', f'nc: 3\nnames: [{NAMES}]']
)
def test_what_data_yaml_may_say(text, names, made, folder, work_dir):
    drawn = made(make_yolo, folder)
    (folder / 'data.yaml').write_text(f'{text}{names}\n')
    data = read_own_data(folder, work_dir)
    assert data.classes == CLASSES
    for name, split in data.splits.items():
        images = [folder / name.replace('val', 'valid') / 'images' / p.name for p in drawn[name]]
        found = open_coco(split.annotations).imgs.values()
        assert sorted(split.images / image['file_name'] for image in found) == sorted(images)
        assert len(open_coco(split.annotations).anns) > 0
    assert list(data.splits) == ['train', 'val']


def test_lists_of_images_and_of_folders(made, folder, work_dir):
    drawn = made(make_yolo, folder)
    first = [picture.name for picture in drawn['train'][:3]]
    for kind, suffix in (('images', ''), ('labels', '.txt')):
        place = folder / 'more' / kind / 'deep'
        place.mkdir(parents=True)
        for name in first:
            path = folder / 'train' / kind / (f'{Path(name).stem}{suffix}' if suffix else name)
            if path.exists():
                path.rename(place / path.name)
    editors = folder / 'more/images/.editor'
    editors.mkdir()
    shutil.copy(place.parents[1] / 'images/deep' / first[1], editors)
    (folder / 'val.txt').write_text(
        '\n'.join(f'./valid/images/{picture.name}' for picture in drawn['val'][:2])
    )
    (folder / 'data.yaml').rename(folder / 'mine.yaml')
    (folder / 'mine.yaml').write_text(
        f'train: [train/images, more/images]\nval: val.txt\nnames: [{NAMES}]\n'
    )
    data = read_own_data(folder, work_dir)
    train, val = data.splits['train'], data.splits['val']
    assert data.layout == 'YOLO labels (mine.yaml)'
    assert (train.count, train.images) == (6, folder)
    coco = open_coco(train.annotations)
    names = {image['file_name'] for image in coco.imgs.values()}
    assert {f'more/images/deep/{name}' for name in first} < names
    assert len(coco.anns) == sum(len(picture.objects) for picture in drawn['train'])
    assert (val.count, val.images) == (2, folder / 'valid/images')
    assert open_coco(val.annotations).anns


def test_labels_beside_the_images(made, folder, work_dir):
    drawn = made(make_yolo, folder)
    for split in ('train', 'valid'):
        for path in (folder / split).glob('*/*'):
            path.rename(folder / split / path.name)
        for kind in ('images', 'labels'):
            (folder / split / kind).rmdir()
    (folder / 'data.yaml').write_text(f'train: train\nval: valid\nnames: [{NAMES}]\n')
    data = read_own_data(folder, work_dir)
    for name, split in data.splits.items():
        check_coco(split, drawn[name], masks=False)


def test_names_that_yaml_would_take_for_something_else(made, folder, work_dir):
    made(make_yolo, folder)
    change_text(folder / 'data.yaml', "'Straßenbahn', 'traffic light', 'dog'", 'no, 1e3, 2')
    assert read_own_data(folder, work_dir).classes == ('no', '1e3', '2')


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.tif'])
def test_sizes_are_those_that_mmcv_reads(suffix, tmp_path):
    mmcv = pytest.importorskip('mmcv')
    for orientation in range(1, 9):
        path, exif = tmp_path / f'{orientation}{suffix}', Image.Exif()
        exif[0x0112] = orientation
        Image.new('RGB', (40, 20)).save(path, exif=exif)
        height, width = mmcv.imread(str(path)).shape[:2]
        assert image_size(path) == (width, height)
    assert (width, height) == (20, 40)


def test_a_mask_of_a_turned_image_is_as_it_is_seen(made, folder, work_dir):
    made(make_maps, folder)
    path = sorted((folder / 'images/val').iterdir())[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    assert read_own_data(folder, work_dir).splits['val'].count == 3


def test_of_many_masks_a_sample_is_read(made, folder, work_dir, monkeypatch):
    made(make_maps, folder)
    monkeypatch.setattr(maps, '_SAMPLE', 2)
    path = sorted((folder / 'masks/train').iterdir())[1]
    path.write_bytes(b'')
    assert read_own_data(folder, work_dir).splits['train'].count == 6
    monkeypatch.setattr(maps, '_SAMPLE', 6)
    with pytest.raises(ValueError, match='cannot be read as an image'):
        read_own_data(folder, work_dir)


def test_hundreds_of_colours_are_all_different():
    palette = make_palette(1000)
    assert len(set(palette)) == 1000
    assert palette[:10] == make_palette(10)
    assert all(isinstance(part, int) and 0 <= part <= 255 for colour in palette for part in colour)
    few = np.array(make_palette(20), float)
    distances = np.linalg.norm(few[:, None] - few, axis=-1)
    assert distances[~np.eye(20, dtype=bool)].min() > 30


def test_relative_folders_give_absolute_paths(made, tmp_path, monkeypatch):
    made(make_yolo, tmp_path / 'set')
    monkeypatch.chdir(tmp_path)
    data = read_own_data('set', 'work')
    assert data.folder == tmp_path / 'set'
    assert data.splits['train'].annotations == tmp_path / 'work/data/instances_train.json'
    assert data.splits['train'].images == tmp_path / 'set/train/images'


def in_json(path, change):
    return lambda folder: change_json(folder / path, change)


def in_text(path, old, new):
    return lambda folder: change_text(folder / path, old, new)


def written(path, text):
    return lambda folder: (folder / path).write_text(text)


def removed(path):
    def remove(folder):
        for found in [folder / path] if '*' not in path else sorted(folder.glob(path)):
            shutil.rmtree(found) if found.is_dir() else found.unlink()

    return remove


def renamed(old, new):
    return lambda folder: (folder / old).rename(folder / new)


def labelled(text):
    def write(folder):
        sorted((folder / 'train/labels').iterdir())[0].write_text(text)

    return write


def repainted(change):
    def repaint(folder):
        path = sorted((folder / 'masks/train').iterdir())[0]
        change(Image.open(path)).save(path)

    return repaint


def blank_all(value):
    def blank(folder):
        for path in (folder / 'masks/train').iterdir():
            Image.fromarray(np.full_like(np.asarray(Image.open(path)), value)).save(path)

    return blank


def set_first(key, **values):
    return lambda content: content[key][0].update(values)


def cut(key, count=0):
    def change(content):
        content[key] = content[key][:count]

    return change


WRONG = {
    'no folder': (make_coco, removed('.'), 'there is no folder .*meine Daten'),
    'a file': (
        make_coco,
        lambda folder: (removed('.')(folder), folder.write_text('')),
        'is a file: give the folder .* unpacked',
    ),
    'empty': (
        make_coco,
        removed('*'),
        r'(?s)in no layout that is known\. It holds: nothing\..*1\. .*2\. .*3\. .*4\. .*5\. ',
    ),
    'unknown': (
        make_yolo,
        removed('data.yaml'),
        r'no layout that is known\. It holds: train/ \(images, labels\), valid/ \(images, labels\)',
    ),
    # COCO
    'no training file': (make_coco, removed(COCO_TRAIN), 'no annotations/instances_train'),
    'no validation file': (
        make_coco,
        removed(COCO_VAL),
        r'nothing to validate on: there is no annotations/instances_val\*\.json\. Move a part',
    ),
    'no validation in an export': (
        make_coco_export,
        removed('valid'),
        'nothing to validate on: there is no val/_annotations.coco.json',
    ),
    'two training files': (
        make_coco,
        lambda folder: shutil.copy(
            folder / COCO_TRAIN, folder / 'annotations/instances_train2014.json'
        ),
        'has instances_train2014.json, instances_train2017.json: keep one for train',
    ),
    'val and valid': (
        make_coco_export,
        lambda folder: shutil.copytree(folder / 'valid', folder / 'val'),
        'has val and valid, which mean the same',
    ),
    'no JSON': (make_coco, written(COCO_TRAIN, '{'), 'instances_train2017.json is no COCO file'),
    'JSON of another kind': (make_coco, written(COCO_TRAIN, '[]'), 'no COCO file.*images'),
    'no categories': (
        make_coco,
        in_json(COCO_TRAIN, lambda content: content.pop('categories')),
        "no COCO file: it needs a list 'categories', each with id and name",
    ),
    'ids that are words': (
        make_coco,
        in_json(COCO_TRAIN, set_first('categories', id='1')),
        'ids of its categories must be integers',
    ),
    'a category id twice': (
        make_coco,
        in_json(COCO_TRAIN, set_first('categories', id=4)),
        'instances_train2017.json: .* annotations belong to categories that are not',
    ),
    'a category twice': (
        make_coco,
        in_json(COCO_TRAIN, lambda content: content['categories'].append(dict(id=1, name='x'))),
        'two categories have the same id',
    ),
    'a class twice': (
        make_coco,
        in_json(COCO_TRAIN, set_first('categories', name='dog')),
        "instances_train2017.json has the class 'dog' twice",
    ),
    'an image id twice': (
        make_coco,
        in_json(COCO_TRAIN, set_first('images', id=2)),
        '1 images have the id of another image',
    ),
    'no training images': (
        make_coco,
        in_json(COCO_TRAIN, lambda content: content.update(images=[], annotations=[])),
        'instances_train2017.json has no images, so there is nothing to train on',
    ),
    'no training annotations': (
        make_coco_export,
        in_json(EXPORT_TRAIN, cut('annotations')),
        'train/_annotations.coco.json has no annotations, so there is nothing to train on',
    ),
    'no validation annotations': (
        make_coco,
        in_json(COCO_VAL, cut('annotations')),
        'instances_val2017.json has no annotations, so there is nothing to validate on',
    ),
    'images missing': (
        make_coco,
        removed('train2017/*.jpg'),
        r'names 5 images that are not in .*train2017 \(Brücke im Grünen 0\.jpg, .* 1\.jpg, '
        r'.* 3\.jpg, \.\.\.\): put them there',
    ),
    'no folder of images': (
        make_coco,
        removed('train2017'),
        'names 6 images that are not in .*meine Daten/train2017 ',
    ),
    'unknown image': (
        make_coco_export,
        in_json(EXPORT_TRAIN, set_first('annotations', image_id=77)),
        r'1 annotations belong to images that are not .*\(the first: id 0, image 77\): remove or',
    ),
    'unknown category': (
        make_coco,
        in_json(COCO_TRAIN, set_first('annotations', category_id=2)),
        r'1 annotations belong to categories that are not .* id 1, Brücke im Grünen 1\.jpg\)',
    ),
    'no box': (
        make_coco,
        in_json(COCO_TRAIN, lambda content: content['annotations'][0].pop('bbox')),
        r'1 annotations have no bbox \[x, y, width, height\]',
    ),
    'box without width': (
        make_coco,
        in_json(COCO_TRAIN, set_first('annotations', bbox=[3, 3, 0, 5])),
        r'1 annotations have a box without width or height \(the first: id 1, .*\): remove or fix',
    ),
    # YOLO
    'no YAML': (make_yolo, written('data.yaml', 'train: ['), 'data.yaml is no YAML'),
    'no train entry': (make_yolo, in_text('data.yaml', 'train:', 'x:'), 'no entry "train: FOLDER"'),
    'no val entry': (
        make_yolo,
        in_text('data.yaml', 'val:', 'x:'),
        'validate on: there is no entry "val: FOLDER" in data.yaml. Move a part',
    ),
    'train not there': (
        make_yolo,
        removed('train'),
        'nothing to train on: there is no folder ../train/images, which data.yaml names as train',
    ),
    'val not there': (make_yolo, removed('valid'), 'no folder ../valid/images, which data.yaml'),
    'an entry of another kind': (
        make_yolo,
        in_text('data.yaml', 'train: ../train/images', 'train: {a: b}'),
        'train must be a folder, a list of folders or a .txt file',
    ),
    'an entry that is an image': (
        make_yolo,
        lambda folder: (
            shutil.copy(next((folder / 'train/images').iterdir()), folder / 'a.jpg'),
            in_text('data.yaml', '../train/images', 'a.jpg')(folder),
        ),
        'a.jpg, which is neither a folder nor a .txt file',
    ),
    'two settings': (
        make_yolo,
        lambda folder: (
            shutil.copy(folder / 'data.yaml', folder / 'a.yaml'),
            renamed('data.yaml', 'b.yaml')(folder),
        ),
        'has a.yaml, b.yaml: keep the one that counts, as data.yaml',
    ),
    'no names': (make_yolo, in_text('data.yaml', 'names:', 'x:'), 'has no names of classes'),
    'another nc': (make_yolo, in_text('data.yaml', 'nc: 3', 'nc: 4'), 'nc is 4, .* 3 names'),
    'names from 1': (
        make_yolo,
        in_text('data.yaml', 'names: [', 'names: {1: a, 2: b, 3: c}\nx: ['),
        'numbers of the names must be 0 to 2, got 1, 2, 3',
    ),
    'a name twice': (
        make_yolo,
        in_text('data.yaml', 'traffic light', 'dog'),
        "data.yaml has the class 'dog' twice",
    ),
    'an empty name': (
        make_yolo,
        in_text('data.yaml', 'traffic light', ''),
        'data.yaml: class 1 has no name',
    ),
    'key points': (
        make_yolo,
        in_text('data.yaml', 'nc:', 'kpt_shape: [17, 3]\nnc:'),
        'about key points, which are not read',
    ),
    'empty training folder': (
        make_yolo,
        removed('train/images/*'),
        'train/images has no images, so there is nothing to train on',
    ),
    'no labels': (
        make_yolo,
        removed('train/labels'),
        'train/labels has no annotations, so there is nothing to train on',
    ),
    'a list with missing images': (
        make_yolo,
        lambda folder: (
            written('train.txt', 'train/images/a.jpg\nb.jpg\n')(folder),
            in_text('data.yaml', '../train/images', 'train.txt')(folder),
        ),
        r'train.txt names 2 images that are missing \(train/images/a.jpg, b.jpg\)',
    ),
    'a word': (make_yolo, labelled('0 0.5 0.5 0.2 0.2\nx 0 0 1 1'), 'txt, line 2: expected "class'),
    'six numbers': (make_yolo, labelled('0 0.5 0.5 0.2 0.2 0.9'), 'line 1: expected "class x y wi'),
    'class 3': (make_yolo, labelled('3 0.5 0.5 0.2 0.2'), 'line 1: class 3 is none of 0 to 2'),
    'half a class': (make_yolo, labelled('0.5 0.5 0.5 0.2 0.2'), 'class 0.5 is none of 0 to 2'),
    'pixels': (make_yolo, labelled('0 50 50 20 20'), 'must be parts of the width and height'),
    'no number': (make_yolo, labelled('0 nan 0.5 0.2 0.2'), 'must be parts of the width'),
    'label without width': (
        make_yolo,
        labelled('0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0 0.2\n1 1.5 0.5 0.2 0.2'),
        r'2 boxes have no width or no height .*txt, line 2\): remove or fix them',
    ),
    'no text': (
        make_yolo,
        lambda folder: sorted((folder / 'train/labels').iterdir())[0].write_bytes(b'\xff\xfe0'),
        'is not text in UTF-8',
    ),
    'a broken image': (
        make_yolo,
        lambda folder: sorted((folder / 'train/images').iterdir())[0].write_bytes(b'GIF'),
        'Brücke im Grünen 0.jpg cannot be read as an image .*: remove it',
    ),
    # Masks
    'no classes.txt': (make_maps, removed('classes.txt'), 'there is no .*classes.txt: write it'),
    'one class': (make_maps, written('classes.txt', 'a\n'), 'must have 2 to 255 classes'),
    'a line twice': (make_maps, written('classes.txt', 'a\nb\nc\na\n'), "the class 'a' twice"),
    'no val': (make_maps, removed('images/val'), 'there is no images/val/. Move a part'),
    'no images': (make_maps, removed('images/train/*'), 'images/train has no images'),
    'masks missing': (
        make_maps,
        removed('masks/train/* [1-5].png'),
        r'masks/train lacks the masks of 5 images \(Brücke im Grünen 1.png, .* 3.png, \.\.\.\)',
    ),
    'a mask of colours': (
        make_maps,
        repainted(lambda mask: mask.convert('RGB')),
        '0.png has pixels of kind RGB: a mask has one channel',
    ),
    'a smaller mask': (
        make_maps,
        repainted(lambda mask: mask.resize((20, 10), 0)),
        '0.png has 20 x 10 pixels, .*0.jpg has 130 x 97: they must agree',
    ),
    'a value without class': (
        make_maps,
        written('classes.txt', 'a\nb\nc\n'),
        'holds the value 3, but the 3 classes of classes.txt are 0 to 2, and 255 is ignored',
    ),
    'all ignored': (make_maps, blank_all(255), 'masks/train hold nothing but 255, so there is no'),
    'one value': (make_maps, blank_all(1), 'hold nothing but 1, so there is nothing to learn'),
    # Folders of classes
    'no val folder': (
        make_class_folders,
        removed('val'),
        r'nothing to validate on: there is no val/CLASS/\*\.jpg\. Move a part',
    ),
    'no train folder': (make_class_folders, removed('train'), 'nothing to train on'),
    'only one class': (
        make_class_folders,
        removed('train/[!d]*'),
        'train has 1 folders of classes: at least 2 are needed',
    ),
    'a class less': (
        make_class_folders,
        removed('val/kite'),
        'must have folders of the same classes; only one of them has kite: add',
    ),
    'an empty class': (
        make_class_folders,
        removed('train/kite/*'),
        r'train has no images of kite: add some \(\.jpg',
    ),
    'a hidden folder': (
        make_class_folders,
        lambda folder: (folder / 'val/.ipynb_checkpoints').mkdir(),
        'val has the folder .ipynb_checkpoints, which mmpretrain takes for a class',
    ),
}


@pytest.mark.parametrize('case', WRONG)
def test_wrong_data_are_refused_in_a_sentence(case, made, folder, work_dir):
    make, damage, message = WRONG[case]
    made(make, folder)
    damage(folder)
    before = contents(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        read_own_data(folder, work_dir)
    assert type(caught.value) in (ValueError, FileNotFoundError)
    assert contents(folder) == before


def test_the_helper_draws_the_same_each_time(tmp_path):
    for name in ('first', 'again'):
        own_data_folders.make_coco(tmp_path / name, train=2, val=1)
    first, again = (
        {p.relative_to(tmp_path / name): c for p, c in contents(tmp_path / name).items()}
        for name in ('first', 'again')
    )
    assert first == again and len(first) == 8
