"""Faults of data sets: each breaks a copy of a good one, and says what has to be said about it.

The good ones are those of ``own_data_folders``, named by a config as a data set of its own.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from own_data_folders import CLASSES, FOLDERS, SEMANTIC_CLASSES, make_class_folders, make_coco
from own_data_folders import make_maps as make_maps
from PIL import Image

TRAIN = 'annotations/instances_train2017.json'
VAL = 'annotations/instances_val2017.json'
PICTURE = 'Brücke im Grünen 1.jpg'
LAST = 'Brücke im Grünen 4.jpg'


def detection(folder):
    """The config of a detector with masks on ``make_coco``."""

    def loader(split, **more):
        dataset = dict(
            type='CocoDataset',
            data_root=str(folder),
            ann_file=f'annotations/instances_{split}2017.json',
            data_prefix=dict(img=f'{split}2017/'),
            metainfo=dict(classes=CLASSES),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
                dict(type='Resize', scale=(64, 64), keep_ratio=False),
                dict(type='PackDetInputs'),
            ],
            **more,
        )
        return dict(batch_size=1, num_workers=0, dataset=dataset)

    metric = dict(type='CocoMetric', ann_file=f'{folder}/{VAL}', metric=['bbox', 'segm'])
    heads = dict(bbox_head=dict(num_classes=3), mask_head=dict(num_classes=3))
    repeated = loader('train', filter_cfg=dict(filter_empty_gt=True, min_size=32))
    repeated['dataset'] = dict(type='RepeatDataset', times=2, dataset=repeated['dataset'])
    return dict(
        default_scope='mmdet',
        model=dict(roi_head=dict(heads, semantic_head=dict(num_classes=183))),
        train_dataloader=repeated,
        val_dataloader=loader('val', test_mode=True),
        val_evaluator=metric,
        test_dataloader=loader('val', test_mode=True),
        test_evaluator=metric,
    )


def segmentation(folder):
    """The config of a segmenter on ``make_maps``."""

    def loader(split):
        dataset = dict(
            type='BaseSegDataset',
            data_root=str(folder),
            data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'masks/{split}'),
            metainfo=dict(classes=SEMANTIC_CLASSES),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations'),
                dict(type='RandomCrop', crop_size=(48, 48)),
                dict(type='PackSegInputs'),
            ],
        )
        return dict(batch_size=1, num_workers=0, dataset=dataset)

    return dict(
        default_scope='mmseg',
        model=dict(decode_head=dict(num_classes=4), auxiliary_head=[dict(num_classes=4)]),
        train_dataloader=loader('train'),
        val_dataloader=loader('val'),
        val_evaluator=dict(type='IoUMetric'),
    )


def classification(folder):
    """The config of a classifier on ``make_class_folders``; the validation images are listed."""
    lines = [
        f'{path.relative_to(folder / "val").as_posix()} {FOLDERS.index(path.parent.name)}\n'
        for path in sorted(Path(folder, 'val').rglob('*.jpg'))
    ]
    Path(folder, 'val.txt').write_text(''.join(lines))

    def loader(split, **more):
        pipeline = [
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=32),
            dict(type='PackInputs'),
        ]
        dataset = dict(
            type='CustomDataset',
            data_root=str(folder),
            data_prefix=split,
            metainfo=dict(classes=FOLDERS),
            pipeline=pipeline,
        )
        return dict(batch_size=1, num_workers=0, dataset=dict(dataset, **more))

    return dict(
        default_scope='mmpretrain',
        model=dict(head=dict(num_classes=5)),
        train_dataloader=loader('train'),
        val_dataloader=loader('val', ann_file='val.txt'),
        val_evaluator=dict(type='Accuracy'),
    )


MAKERS = {detection: make_coco, segmentation: make_maps, classification: make_class_folders}


@dataclass
class Fault:
    """A fault.

    Attributes:
        name: In words.
        config: Makes the config of the good data set.
        spoil: Spoils it, given its folder and its config.
        said: A pattern of the line that is expected.
        refused: Whether it is refused; else it is skipped, as the toolbox does.
        full: Whether it takes a look at every file to be found for certain.
    """

    name: str
    config: Callable
    spoil: Callable
    said: str
    refused: bool = True
    full: bool = False


FAULTS = []


def fault(config, said, refused=True, full=False):
    """Add the function below to the table, under its name."""

    def add(spoil):
        name = spoil.__name__.strip('_').replace('_', ' ')
        FAULTS.append(Fault(name, config, spoil, said, refused, full))
        return spoil

    return add


def change(path, what):
    """Change the content of a JSON file."""
    content = json.loads(path.read_text())
    what(content)
    path.write_text(json.dumps(content))


def change_annotation(folder, file=TRAIN, place=1, **values):
    """Set values of an annotation; None takes the key away."""

    def what(content):
        row = content['annotations'][place]
        row.update(values)
        for key in [key for key, value in values.items() if value is None]:
            del row[key]

    change(folder / file, what)


def cut(path, share=0.5):
    """Cut a file short."""
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])


# Files of COCO.


@fault(detection, r'instances_train2017\.json.*Missing|Missing.*instances_train2017\.json')
def no_file_of_annotations(folder, cfg):
    (folder / TRAIN).unlink()


@fault(detection, r'instances_train2017\.json: is empty')
def an_empty_file_of_annotations(folder, cfg):
    (folder / TRAIN).write_text('')


@fault(detection, r'instances_val2017\.json: is no JSON \(.*line 1 column')
def a_file_of_annotations_cut_short(folder, cfg):
    cut(folder / VAL)


@fault(detection, r'instances_train2017\.json: is a list, not a COCO file')
def a_list_of_annotations(folder, cfg):
    content = json.loads((folder / TRAIN).read_text())
    (folder / TRAIN).write_text(json.dumps(content['annotations']))


@fault(detection, r"instances_train2017\.json: has no list 'categories'")
def no_categories(folder, cfg):
    change(folder / TRAIN, lambda content: content.pop('categories'))


@fault(detection, r'instances_train2017\.json: is not in UTF-8')
def a_file_in_latin_1(folder, cfg):
    content = json.loads((folder / TRAIN).read_text())
    text = json.dumps(content, ensure_ascii=False)
    (folder / TRAIN).write_bytes(text.encode('latin-1'))


@fault(detection, r'train2017\.json: starts with a byte-order mark')
def a_byte_order_mark(folder, cfg):
    (folder / TRAIN).write_text('\ufeff' + (folder / TRAIN).read_text())


@fault(
    detection,
    r'no category matches \(categories in .*train2017\.json: cat, cow, horse; '
    r'classes of the config: Straßenbahn, traffic light, dog\)',
)
def no_category_that_matches(folder, cfg):
    def what(content):
        for row, name in zip(content['categories'], ('cat', 'cow', 'horse')):
            row['name'] = name

    change(folder / TRAIN, what)


@fault(detection, r'val2017\.json: .*not numbered.* like the classes of the config')
def categories_in_another_order(folder, cfg):
    change(folder / VAL, lambda content: content['categories'].reverse())


@fault(detection, r'1 classes of the config.*no category \(dog\)', refused=False)
def a_last_class_without_category(folder, cfg):
    def what(content):
        content['categories'].pop()
        content['annotations'] = [a for a in content['annotations'] if a['category_id'] != 7]

    change(folder / TRAIN, what)


@fault(detection, r'1 categories have the name of another \(dog\)')
def a_category_of_the_same_name(folder, cfg):
    change(folder / TRAIN, lambda content: content['categories'].append(dict(id=99, name='dog')))


@fault(detection, r'1 images have the id of another \(id 1, .*\)')
def images_of_the_same_id(folder, cfg):
    change(folder / TRAIN, lambda content: content['images'][1].update(id=1))


@fault(detection, r'2 annotations have the id of another \(id 1, .*; id 1, .*\)')
def annotations_of_the_same_id(folder, cfg):
    change_annotation(folder, place=1, id=1)
    change_annotation(folder, place=2, id=1)


@fault(detection, r'1 annotations have no id')
def an_annotation_without_id(folder, cfg):
    change_annotation(folder, id=None)


@fault(detection, r'1 annotations have the id 0', refused=False)
def an_annotation_of_id_0(folder, cfg):
    change_annotation(folder, VAL, place=0, id=0)


@fault(detection, r'1 annotations belong to images that are not listed \(id 2, image 99\)', False)
def an_annotation_of_an_unlisted_image(folder, cfg):
    change_annotation(folder, image_id=99)


@fault(detection, r'1 annotations belong to categories that are not listed', refused=False)
def an_annotation_of_an_unlisted_category(folder, cfg):
    change_annotation(folder, category_id=99)


@fault(detection, r'1 annotations have boxes narrower or lower than a pixel', refused=False)
def a_box_without_width(folder, cfg):
    change_annotation(folder, bbox=[10, 10, 0, 20])


@fault(detection, r'1 annotations have an area of 0 or less', refused=False)
def an_object_without_area(folder, cfg):
    change_annotation(folder, area=0)


@fault(detection, r'1 annotations have no area')
def an_object_that_lacks_its_area(folder, cfg):
    change_annotation(folder, area=None)


@fault(detection, r'1 annotations have boxes outside their image', refused=False)
def a_box_outside_the_image(folder, cfg):
    change_annotation(folder, bbox=[1000, 10, 20, 20])


@fault(detection, r'1 annotations have boxes that reach out of their image', refused=False)
def a_box_that_reaches_out_of_the_image(folder, cfg):
    change_annotation(folder, bbox=[10, 10, 1000, 20])


@fault(detection, r'1 annotations have no bbox of four finite numbers')
def a_box_with_nan(folder, cfg):
    change_annotation(folder, bbox=[10, float('nan'), 20, 20])


@fault(detection, r'1 annotations have no bbox of four finite numbers')
def a_box_of_three_numbers(folder, cfg):
    change_annotation(folder, bbox=[10, 10, 20])


@fault(
    detection, r'5 annotations have no bbox of four .*\((id \d+, .*?; ){2}id \d+, .*; and 2 more\)'
)
def many_boxes_of_words(folder, cfg):
    for place in range(5):
        change_annotation(folder, place=place, bbox=['1', '2', '3', '4'])


@fault(detection, r'1 annotations have no mask')
def an_object_without_mask(folder, cfg):
    change_annotation(folder, segmentation=None)


@fault(detection, r'1 annotations have no polygon of three or more points', refused=False)
def a_polygon_of_two_points(folder, cfg):
    change_annotation(folder, segmentation=[[1, 1, 5, 5]])


@fault(detection, r'val2017\.json: 1 annotations have no polygon of three or more points')
def a_polygon_of_two_points_to_evaluate_on(folder, cfg):
    change_annotation(folder, VAL, segmentation=[[1, 1, 5, 5]])


@fault(detection, r'1 annotations have a first polygon of fewer than three points')
def a_short_polygon_before_a_longer_one_to_evaluate_on(folder, cfg):
    change_annotation(folder, VAL, segmentation=[[1, 1, 5, 5], [1, 1, 9, 1, 5, 5]])


@fault(detection, r'1 annotations have a segmentation that is neither polygons nor RLE')
def a_polygon_of_words(folder, cfg):
    change_annotation(folder, segmentation=[['a', 'b', 'c', 'd', 'e', 'f']])


@fault(detection, r'1 annotations have a segmentation that is neither polygons nor RLE')
def a_polygon_without_its_list(folder, cfg):
    change_annotation(folder, segmentation=[1, 1, 5, 5, 9, 1])


@fault(detection, r'1 annotations have an RLE that does not fill its image')
def an_rle_of_another_size(folder, cfg):
    change_annotation(folder, segmentation=dict(size=[5, 5], counts=[10, 15]))


@fault(detection, r'1 annotations have an RLE that does not fill its image')
def an_rle_that_is_too_short(folder, cfg):
    change_annotation(folder, segmentation=dict(size=[64, 80], counts=[10, 15]))


@fault(detection, r'1 annotations have an RLE that does not fill its image')
def a_compressed_rle_that_is_too_short(folder, cfg):
    change_annotation(folder, segmentation=dict(size=[64, 80], counts='PR1f0'))


@fault(detection, r'1 annotations have no iscrowd')
def an_object_to_evaluate_on_without_iscrowd(folder, cfg):
    change_annotation(folder, VAL, iscrowd=None)


@fault(detection, r'1 images have no width and height')
def an_image_without_its_size(folder, cfg):
    change(folder / TRAIN, lambda content: content['images'][2].pop('width'))


@fault(
    detection,
    r'1 images have another size than their file \(.* 1\.jpg: 64 x 80, the file 80 x 64\)',
)  # noqa: E501
def sizes_that_differ_from_the_files(folder, cfg):
    change(folder / TRAIN, lambda content: content['images'][1].update(width=64, height=80))


@fault(detection, r'1 images have names with \.\. or from the root \(\.\./train2017/')
def a_name_that_leads_out_of_the_folder(folder, cfg):
    change(folder / TRAIN, lambda c: c['images'][1].update(file_name=f'../train2017/{PICTURE}'))


@fault(detection, r'1 images have names with \.\. or from the root \(/')
def a_name_from_the_root(folder, cfg):
    name = str(folder / 'train2017' / PICTURE)
    change(folder / TRAIN, lambda content: content['images'][1].update(file_name=name))


@fault(detection, r'1 images are not in .*train2017 \(Brücke im Grünen 1\.jpg\)')
def a_missing_image(folder, cfg):
    (folder / 'train2017' / PICTURE).unlink()


@fault(detection, r'1 images are empty files')
def an_empty_image(folder, cfg):
    (folder / 'train2017' / PICTURE).write_bytes(b'')


@fault(detection, r'1 images cannot be read')
def an_image_that_is_text(folder, cfg):
    (folder / 'train2017' / PICTURE).write_text('no picture')


@fault(detection, r'1 images are cut short', full=True)
def an_image_cut_short(folder, cfg):
    cut(folder / 'train2017' / PICTURE)


@fault(detection, r'1 images cannot be read \(.* 2\.png\)')
def a_png_cut_short(folder, cfg):
    cut(folder / 'train2017' / 'Brücke im Grünen 2.png')


@fault(detection, r'1 images are smaller than 32 pixels', refused=False)
def an_image_that_is_too_small(folder, cfg):
    path = folder / 'train2017' / 'Brücke im Grünen 0.jpg'  # without objects
    Image.open(path).crop((0, 0, 130, 20)).save(path)
    change(folder / TRAIN, lambda content: content['images'][0].update(height=20))


@fault(detection, r'val2017\.json: has no annotations')
def an_unannotated_validation_set(folder, cfg):
    change(folder / VAL, lambda content: content.update(annotations=[]))


@fault(detection, r'train2017\.json: has no images')
def no_images(folder, cfg):
    change(folder / TRAIN, lambda content: content.update(images=[], annotations=[]))


@fault(detection, r'train2017\.json: no image has an object .* left')
def nothing_but_boxes_without_area(folder, cfg):
    def what(content):
        for row in content['annotations']:
            row.update(category_id=99)

    change(folder / TRAIN, what)


@fault(detection, r'absent\.json: is not there, .*val_evaluator\.ann_file')
def an_evaluator_without_its_file(folder, cfg):
    cfg.val_evaluator.ann_file = str(folder / 'absent.json')


@fault(detection, r'lacks \d+ of the images of val_dataloader .*val_evaluator\.ann_file')
def an_evaluator_of_other_images(folder, cfg):
    def what(content):
        for row in content['images']:
            row['id'] += 1000

    shutil.copy(folder / VAL, folder / 'other.json')
    change(folder / 'other.json', what)
    cfg.val_evaluator.ann_file = str(folder / 'other.json')


@fault(detection, r'model\.roi_head\.mask_head\.num_classes is 80, the data have 3 classes')
def a_head_of_other_classes(folder, cfg):
    cfg.model.roi_head.mask_head.num_classes = 80


# Maps of classes.


def mask(folder, number=1):
    return folder / f'masks/train/Brücke im Grünen {number}.png'


@fault(
    segmentation,
    r'1 maps have another size than their image \(.* 1\.png: 40 x 30 instead of 80 x 64\)',
)  # noqa: E501
def a_map_of_another_size(folder, cfg):
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(mask(folder))


@fault(segmentation, r'1 maps have several channels \(.* 1\.png: RGB\)')
def a_map_in_colours(folder, cfg):
    Image.open(mask(folder)).convert('RGB').save(mask(folder))


@fault(segmentation, r'1 maps have values beyond the 4 classes \(.* 1\.png: 9\)')
def a_map_of_labels_beyond_the_classes(folder, cfg):
    values = np.asarray(Image.open(mask(folder))).copy()
    values[5, 5] = 9
    Image.fromarray(values).save(mask(folder))


@fault(segmentation, r'1 maps cannot be read')
def a_map_that_is_text(folder, cfg):
    mask(folder).write_text('no map')


@fault(segmentation, r'1 maps cannot be read')
def an_empty_map(folder, cfg):
    mask(folder).write_bytes(b'')


@fault(segmentation, r'1 images have no map in .*masks/train')
def an_image_without_map(folder, cfg):
    mask(folder).unlink()


@fault(segmentation, r'images/train: 1 images do not end in \.jpg', refused=False)
def an_image_of_another_kind(folder, cfg):
    shutil.copy(mask(folder), folder / 'images/train/more.png')


@fault(segmentation, r'images/train: has no images that end in \.jpg')
def images_of_another_kind_alone(folder, cfg):
    for path in Path(folder, 'images/train').iterdir():
        path.rename(path.with_suffix('.jpeg'))


@fault(segmentation, r'model\.auxiliary_head\.0\.num_classes is 150, the data have 4 classes')
def an_auxiliary_head_of_other_classes(folder, cfg):
    cfg.model.auxiliary_head[0].num_classes = 150


@fault(segmentation, r'1 images are cut short', full=True)
def an_image_of_a_segmenter_cut_short(folder, cfg):
    cut(folder / 'images/val/Brücke im Grünen 1.jpg')


@fault(segmentation, r'split\.txt: 1 images are not in .*images/train \(absent\.jpg\)')
def a_list_with_an_absent_image(folder, cfg):
    (folder / 'split.txt').write_text('Brücke im Grünen 1\nabsent\n')
    cfg.train_dataloader.dataset.ann_file = 'split.txt'


@fault(segmentation, r'split\.txt: is not in UTF-8')
def a_list_in_latin_1(folder, cfg):
    (folder / 'split.txt').write_bytes('Brücke im Grünen 1\n'.encode('latin-1'))
    cfg.train_dataloader.dataset.ann_file = 'split.txt'


@fault(detection, r'annotations: cannot be read \(Is a directory\)')
def a_folder_for_a_file_of_annotations(folder, cfg):
    cfg.train_dataloader.dataset.dataset.ann_file = 'annotations'


# Folders of classes and lists of labels.


@fault(classification, r'train: holds 4 folders of classes, the config has 5 classes')
def a_class_without_folder(folder, cfg):
    shutil.rmtree(folder / 'train' / 'dog')


@fault(classification, r'train: 1 classes have no images \(dog\)', refused=False)
def a_class_without_images(folder, cfg):
    for path in Path(folder, 'train/dog').iterdir():
        path.unlink()


@fault(classification, r'val: has other folders of classes than .*/train, .*\(cat; dog\)')
def other_folders_to_validate_on(folder, cfg):
    del cfg.val_dataloader.dataset['ann_file']
    (folder / 'val' / 'dog').rename(folder / 'val' / 'cat')


@fault(classification, r'train: 1 files are none of .*\(dog/x\.webp\)', refused=False)
def an_image_of_a_kind_that_is_not_read(folder, cfg):
    (folder / 'train/dog/x.webp').write_bytes(b'')


@fault(classification, r"val\.txt: 1 lines are not \"FILE LABEL\" \(line 2: 'alone'\)")
def a_line_without_label(folder, cfg):
    lines = (folder / 'val.txt').read_text().splitlines()
    (folder / 'val.txt').write_text('\n'.join([lines[0], 'alone', *lines[2:]]))


@fault(classification, r'val\.txt: 1 labels are none of 0 to 4 \(line 1: 5\)')
def a_label_beyond_the_classes(folder, cfg):
    lines = (folder / 'val.txt').read_text().splitlines()
    lines[0] = lines[0].rsplit(' ', 1)[0] + ' 5'
    (folder / 'val.txt').write_text('\n'.join(lines))


@fault(classification, r'val\.txt: 1 images are not in .*val \(dog/absent\.jpg\)')
def a_line_of_an_absent_image(folder, cfg):
    with open(folder / 'val.txt', 'a') as file:
        file.write('dog/absent.jpg 1\n')


@fault(classification, r'val\.txt: is empty')
def an_empty_list(folder, cfg):
    (folder / 'val.txt').write_text('')


@fault(classification, r'model\.head\.num_classes is 1000, the data have 5 classes')
def a_classifier_of_other_classes(folder, cfg):
    cfg.model.head.num_classes = 1000


@fault(classification, r'1 images cannot be read')
def an_image_of_a_classifier_that_is_text(folder, cfg):
    (folder / 'train/dog/Bild für 0.jpg').write_text('no picture')
