"""``tools/predict.py``, as a user would run it."""

import csv
import gc
import json
import re
import weakref

import cv2
import golden_cases
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, default_collate, pseudo_collate
from mmengine.registry import MODELS, init_default_scope
from torch import nn

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')

from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from narrow_configs import narrow_config
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from running_tools import run, succeed

from mmvitbackbones.checkpoints import read_checkpoint
from mmvitbackbones.running import load_config
from mmvitbackbones.running.image_files import Image, find_images, read_images
from mmvitbackbones.running.predicting import Predictor, carried_config
from mmvitbackbones.running.prediction_files import Results

DIGITS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
SMALL = {'demo.size': 96}
MODELS_OF = dict(
    masks=('maskrcnn_rmt_t_1x', {**SMALL, 'model.test_cfg.rcnn.score_thr': 0.0}),
    boxes=('retinanet_rmt_t_1x', {**SMALL, 'model.test_cfg.score_thr': 0.0}),
    segmenter=('semfpn_rmt_t_80k', SMALL),
    classifier=('demo_cls_rmt', {}),
)


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    """Checkpoints as mmengine's Runner.save_checkpoint writes them."""
    folder = tmp_path_factory.mktemp('checkpoints')
    for kind, (name, options) in MODELS_OF.items():
        if kind == 'classifier':
            cfg = load_config(name, demo=True)
        else:
            cfg = narrow_config(name, options, demo=True)
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        model = MODELS.build(built_from(cfg))
        model.init_weights()
        if kind == 'boxes':  # scores of all heights
            nn.init.uniform_(model.bbox_head.retina_cls.bias, -3, 1)
        classes = ('background', *DIGITS) if kind == 'segmenter' else DIGITS
        meta = dict(cfg=cfg.pretty_text, dataset_meta=dict(classes=classes), epoch=1, iter=1)
        torch.save(dict(meta=meta, state_dict=model.state_dict()), folder / f'{kind}.pth')
    return {kind: folder / f'{kind}.pth' for kind in MODELS_OF}


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images') / 'my images'
    rng = np.random.default_rng(0)
    for name, shape in {
        'Bär 1.jpg': (90, 120, 3),
        'grey.png': (70, 50),
        'rgba.png': (64, 64, 4),
        'sub/Bär 1.jpg': (40, 60, 3),
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = cv2.resize(rng.integers(0, 255, (6, 6, *shape[2:]), np.uint8), shape[1::-1])
        path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    deep = rng.integers(0, 65535, (50, 50), np.uint16)
    (folder / 'deep.png').write_bytes(cv2.imencode('.png', deep)[1].tobytes())
    return folder


NAMES = ['Bär 1', 'deep', 'grey', 'rgba', 'sub/Bär 1']  # of the results


def built_from(cfg):
    """The model's config, with the preprocessor that a Runner gives it."""
    return dict(
        cfg.model,
        data_preprocessor=cfg.model.get('data_preprocessor', cfg.get('data_preprocessor')),
    )


def expected(checkpoint, image):
    """What the model says of an image, by its own pipeline and test_step."""
    state = read_checkpoint(checkpoint)
    cfg = carried_config(state, str(checkpoint))
    init_default_scope(cfg.default_scope)
    model = MODELS.build(built_from(cfg)).eval()
    model.load_state_dict(state['state_dict'])
    steps = [s for s in cfg.test_dataloader.dataset.pipeline if 'Annotations' not in s.type]
    item = Compose(steps)(dict(img_path=str(image), img_id=0, gt_label=0))
    collate = default_collate if cfg.default_scope == 'mmpretrain' else pseudo_collate
    with torch.no_grad():
        (sample,) = model.test_step(collate([item]))
    return sample


def predict(*arguments, options=()):
    """On the CPU, as what is expected is."""
    return succeed('predict', *arguments, '--device', 'cpu', options=options)


def files_in(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()
    )


def pictures_of(names):
    return [f'pictures/{name}.jpg' for name in names]


@pytest.mark.parametrize(
    'kind, options', [('masks', ['model.test_cfg.rcnn.max_per_img=4']), ('boxes', [])]
)
def test_detector(kind, options, checkpoints, images, tmp_path):
    out, before, threshold = tmp_path / 'out', files_in(images), 0.0
    if kind == 'boxes':
        scores = expected(checkpoints[kind], images / before[0]).pred_instances.scores
        threshold = scores.median().item()
    arguments = [checkpoints[kind], images, '--out', out, '--score-thr', threshold]
    log = predict(*arguments, options=options)
    assert 'A detector of 10 classes, on cpu' in log and f'5 images predicted on: {out}' in log
    assert len(log.splitlines()) <= 5
    assert files_in(images) == before
    assert files_in(out) == sorted([*pictures_of(NAMES), 'predictions.json'])

    found = json.loads((out / 'predictions.json').read_text())
    assert [entry['name'] for entry in found['categories']] == [*DIGITS]
    assert [entry['file_name'] for entry in found['images']] == before
    for entry in found['images']:
        size = (entry['height'], entry['width'])
        path = images / entry['file_name']
        instances = expected(checkpoints[kind], path).pred_instances
        if kind == 'masks':
            instances = instances[:4]
        instances = instances[instances.scores >= threshold]
        mine = [a for a in found['annotations'] if a['image_id'] == entry['id']]
        assert len(mine) == len(instances)
        boxes = instances.bboxes.numpy()
        boxes[:, 2:] -= boxes[:, :2]
        np.testing.assert_allclose([a['bbox'] for a in mine], boxes, atol=0.02)
        np.testing.assert_allclose([a['score'] for a in mine], instances.scores, atol=1e-5)
        assert [a['category_id'] - 1 for a in mine] == instances.labels.tolist()
        assert all(0 <= v <= max(size) + 0.1 for a in mine for v in a['bbox'])
        for k, annotation in enumerate(mine if kind == 'masks' else ()):
            mask = coco_mask.decode(annotation['segmentation']).astype(bool)
            assert mask.shape == size and mask.sum() == annotation['area']
            assert (mask == instances.masks[k].numpy()).all()

    first = [a for a in found['annotations'] if a['image_id'] == 1]
    assert len(first) == 4 if kind == 'masks' else 50 <= len(first) < 100

    coco = COCO(str(out / 'predictions.json'))  # as a data set, and as results on it
    assert (
        len(coco.loadRes(found['annotations']).anns) == len(coco.anns) == len(found['annotations'])
    )


def test_what_is_below_the_threshold_is_left_out(checkpoints, images, tmp_path):
    predict(checkpoints['masks'], images, '--out', tmp_path, '--no-pictures')
    found = json.loads((tmp_path / 'predictions.json').read_text())
    assert found['annotations'] == [] and len(found['images']) == 5
    assert files_in(tmp_path) == ['predictions.json'] and found['info']['score_thr'] == 0.3


@pytest.mark.parametrize('batch_size', [1, 3])
def test_segmenter(batch_size, checkpoints, images, tmp_path):
    checkpoint = checkpoints['segmenter']
    predict(checkpoint, images, '--out', tmp_path, '--batch-size', batch_size)
    maps = [f'maps/{name}.png' for name in NAMES]
    assert files_in(tmp_path) == sorted([*maps, *pictures_of(NAMES), 'classes.txt'])
    assert (tmp_path / 'classes.txt').read_text().split() == ['background', *DIGITS]
    for name, file in zip(maps, files_in(images)):
        theirs = expected(checkpoint, images / file).pred_sem_seg.data[0].numpy()
        mine = cv2.imdecode(np.fromfile(tmp_path / name, np.uint8), cv2.IMREAD_UNCHANGED)
        assert mine.shape == theirs.shape and mine.dtype == np.uint8
        assert (mine == theirs).mean() > 0.999  # sums of a batch may be rounded otherwise


@pytest.mark.parametrize('batch_size', [1, 2])
def test_classifier(batch_size, checkpoints, images, tmp_path):
    checkpoint = checkpoints['classifier']
    predict(checkpoint, images, '--out', tmp_path, '--batch-size', batch_size)
    assert files_in(tmp_path) == sorted([*pictures_of(NAMES), 'predictions.csv'])
    with (tmp_path / 'predictions.csv').open(encoding='utf-8', newline='') as file:
        rows = [*csv.DictReader(file)]
    assert [row['file'] for row in rows] == files_in(images) and len(rows[0]) == 11
    for row in rows:
        scores = expected(checkpoint, images / row['file']).pred_score
        best = scores.argsort(descending=True)[:5]
        names = [row['class'], *(row[f'class_{k}'] for k in range(2, 6))]
        assert names == [DIGITS[k] for k in best]
        mine = [float(row['score']), *(float(row[f'score_{k}']) for k in range(2, 6))]
        np.testing.assert_allclose(mine, scores[best], atol=2e-5)


def test_videos_files_and_patterns(checkpoints, images, tmp_path):
    """Frames have numbers; equal names in different folders are kept apart."""
    video = tmp_path / 'a clip.avi'
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*'MJPG'), 5, (64, 48))
    for level in (0, 100, 200):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    places = [video, images / '*' / '*.jpg', images / 'Bär 1.jpg']
    checkpoint = checkpoints['boxes']
    predict(checkpoint, *places, '--out', tmp_path / 'out', '--batch-size', 2)
    found = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    top = str(images.relative_to(tmp_path.parent))
    clip = f'{tmp_path.name}/a clip'
    named = {entry['file_name']: entry for entry in found['images']}
    frames = [f'{clip}_{k:06d}' for k in range(3)]
    assert [*named] == sorted([*frames, f'{top}/Bär 1.jpg', f'{top}/sub/Bär 1.jpg'])
    assert named[frames[2]]['frame'] == 2 and named[frames[2]]['video'] == f'{clip}.avi'
    assert named[frames[2]]['height'] == 48
    shown = files_in(tmp_path / 'out' / 'pictures')
    assert shown == sorted(f'{name.removesuffix(".jpg")}.jpg' for name in named)


def test_broken_images(checkpoints, images, tmp_path):
    """They are named, left out and counted; only when all are, the tool fails."""
    (tmp_path / 'in').mkdir()
    broken = ['cut [1] short.jpg', 'empty.png', 'no.avi']
    for name, content in zip(broken, (b'\xff\xd8\xff\xe0', b'', b'no video')):
        (tmp_path / 'in' / name).write_bytes(content)
    good = images / 'grey.png'
    arguments = ['predict', checkpoints['classifier'], *sorted((tmp_path / 'in').iterdir())]
    done = run(*arguments, good, '--out', tmp_path / 'out', '--batch-size', 2)
    assert done.returncode == 0, done.stderr
    for name in broken:
        assert re.search(rf'^left out: .*{re.escape(name)}: .+$', done.stderr, re.MULTILINE)
    assert '3 left out, as named above' in done.stderr and '1 images predicted on' in done.stdout
    assert len((tmp_path / 'out' / 'predictions.csv').read_text().splitlines()) == 2

    done = run(*arguments, '--out', tmp_path / 'other')
    assert done.returncode == 2
    assert done.stderr.endswith('\nerror: none of the images could be read\n')
    assert not (tmp_path / 'other').exists()


@pytest.mark.parametrize(
    'case, words',
    [
        ('empty folder', 'there is no image in '),
        ('absent', "there is no image, video or folder '/no/such.jpg'"),
        ('no checkpoint', "there is no checkpoint '/no/such.pth'"),
        ('results', 'out is there and not empty: name another folder'),
        ('interrupted', 'out holds a run that was interrupted'),
        ('inside', 'which holds the images: name another'),
        ('device', '--device nonsense: '),
        ('threshold', '--score-thr is for detectors: this is a classifier'),
        ('config', "there is no config 'configs/no_such.py'"),
        ('other config', 'does not fit the config: '),
        ('no meta', 'bare.pth carries no config: name the one it was trained with by --config'),
        ('published', 'bare.pth is a published file, without a config: name it by --config'),
    ],
)
def test_refusals_are_one_line(case, words, checkpoints, images, tmp_path):
    checkpoint, places, out, more = checkpoints['classifier'], [images], tmp_path / 'out', []
    bare = tmp_path / 'bare.pth'
    if case == 'empty folder':
        places = [tmp_path]
    elif case == 'absent':
        places.append('/no/such.jpg')
    elif case == 'no checkpoint':
        checkpoint = '/no/such.pth'
    elif case in ('results', 'interrupted'):
        (out / ('unfinished' if case == 'interrupted' else 'maps')).mkdir(parents=True)
    elif case == 'inside':
        out = images / 'sub' / 'out'
    elif case == 'device':
        more = ['--device', 'nonsense']
    elif case == 'threshold':
        more = ['--score-thr', '0.5']
    elif case == 'config':
        more = ['--config', 'configs/no_such.py']
    elif case == 'other config':
        checkpoint, more = checkpoints['boxes'], ['--config', 'configs/retinanet_rmt_t_1x.py']
    elif case == 'no meta':
        torch.save(read_checkpoint(checkpoint)['state_dict'], bare)
        checkpoint = bare
    elif case == 'published':
        torch.save(dict(model=golden_cases.GoldenCase('focal_tiny_cls').weights()), bare)
        checkpoint = bare
    there = files_in(tmp_path)
    done = run('predict', checkpoint, *places, '--out', out, *more)
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
    assert files_in(tmp_path) == there and not (images / 'sub' / 'out').exists()


@pytest.mark.parametrize(
    'case, config, classes',
    [
        ('focal_tiny_cls', 'cls_focal_t_in1k', IMAGENET_CATEGORIES),
        ('det_maskrcnn_regionvit_small_exact', 'maskrcnn_regionvit_s_1x', 'COCO'),
    ],
)
def test_published_files(case, config, classes, images, tmp_path):
    """With the config's classes; a detector also with the settings it was trained with."""
    file = tmp_path / 'published.pth'
    torch.save(dict(model=golden_cases.GoldenCase(case).weights()), file)
    log = succeed(
        *('predict', file, images / 'grey.png', '--out', tmp_path / 'out'),
        *('--config', f'configs/{config}.py', '--no-pictures'),
        options=['test_dataloader.dataset.pipeline.1.scale=(96,64)'] if classes == 'COCO' else (),
    )
    if classes == 'COCO':
        assert "regional_padding='published'" in log and 'in BGR order' in log
        found = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
        assert len(found['categories']) == 80 and found['categories'][1]['name'] == 'bicycle'
    else:
        assert 'published Focal Transformer weights' in log
        with (tmp_path / 'out' / 'predictions.csv').open() as table:
            (row,) = csv.DictReader(table)
        assert row['class'] in classes and 'A classifier of 1000 classes' in log


def loaded(checkpoint):
    state = read_checkpoint(checkpoint)
    cfg = carried_config(state, str(checkpoint))
    return Predictor(cfg, state, str(checkpoint), 'cpu', score_thr=0.1)


def test_memory_is_bounded(checkpoints, tmp_path):
    """Neither images nor predictions stay: of 60, no more than a batch and what comes next."""
    predictor = loaded(checkpoints['boxes'])
    (tmp_path / 'in').mkdir()
    for number in range(60):
        pixels = np.full((32, 32, 3), 4 * number, np.uint8)
        cv2.imwrite(str(tmp_path / 'in' / f'{number:02d}.png'), pixels)
    read, predicted = [], []

    def read_one(path):
        pixels = predictor.read(path)
        read.append(weakref.ref(pixels))
        return pixels

    def alive(references):
        gc.collect(0)
        return sum(reference() is not None for reference in references)

    files, _ = find_images([str(tmp_path / 'in')])
    with Results(str(tmp_path / 'out'), predictor, 'mine.pth', pictures=False) as results:
        found_on = predictor.predict(read_images(files, read_one, pytest.fail), 4, pytest.fail)
        for number, (image, found) in enumerate(found_on, 1):
            results.add(image, found)
            predicted.append(weakref.ref(found))
            assert len(read) <= number + 4 and alive(read) <= 9
            assert alive(predicted) <= 2
        del image, found
    assert len(json.loads((tmp_path / 'out' / 'predictions.json').read_text())['images']) == 60


@pytest.mark.parametrize('kind', ['boxes', 'segmenter', 'classifier'])
def test_an_interrupted_run_leaves_nothing_that_looks_complete(kind, checkpoints, tmp_path):
    predictor = loaded(checkpoints[kind])
    pixels = np.zeros((32, 32, 3), np.uint8)
    (file,), _ = find_images([str(checkpoints[kind])])
    out = tmp_path / 'out'
    with pytest.raises(KeyboardInterrupt):
        with Results(str(out), predictor, 'mine.pth') as results:
            for image, found in predictor.predict([Image(file, 'a', pixels)], 1, pytest.fail):
                results.add(image, found)
            raise KeyboardInterrupt
    assert [path.name for path in out.iterdir()] == ['unfinished']
    with pytest.raises(KeyboardInterrupt):
        with Results(str(tmp_path / 'other'), predictor, 'mine.pth'):
            raise KeyboardInterrupt
    assert not (tmp_path / 'other').exists()
