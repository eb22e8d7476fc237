"""Training, resuming and evaluating through the tools, as a user would."""

import json
import os
import pickle
import re

import cv2
import numpy as np
import pytest

pytest.importorskip('mmdet')

from narrow_configs import narrow_config
from running_tools import ROOT, run, run_process, succeed, without_workers

NARROW = """
        arch=dict(
            _delete_=True, stem='3-conv', dims=[16, 16, 32, 32], heads=[1, 1, 2, 2],
            depths=[1, 1, 1, 1], window_size=7,
        ),
        init_cfg=None,
"""
SEGMENTER = f"""
_base_ = [
    'mmseg::_base_/models/fpn_r50.py', 'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py', 'mmseg::_base_/schedules/schedule_80k.py',
]
custom_imports = dict(imports=['mmvitbackbones'])
model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, type='RegionViT', {NARROW.replace('_delete_=True, ', '')}),
    neck=dict(in_channels=[16, 16, 32, 32]),
)
"""
DIMS = [16, 16, 32, 32]
NARROW_PLAIN = f"""
        arch=dict(_delete_=True, dims={DIMS}, heads=[1, 1, 2, 2], depths=[1, 1, 1, 1]),
        init_cfg=None,
"""
FEW_SCENES = ['val_dataloader.dataset.indices=4', 'test_dataloader.dataset.indices=4']


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A narrow Mask R-CNN after two iterations on the demo's data, and what was printed."""
    folder = tmp_path_factory.mktemp('trained')
    config = folder / 'narrow.py'
    config.write_text(
        f"_base_ = '{ROOT}/configs/maskrcnn_regionvit_s_1x.py'\n"
        f'model = dict(backbone=dict({NARROW}), neck=dict(in_channels=[16, 16, 32, 32]))\n'
        'demo = dict(max_iters=2, warmup=1, log_interval=1)\n'
    )
    arguments = ('train', config, '--demo', '--work-dir', folder)
    return config, folder, succeed(*arguments, how=run_process, options=FEW_SCENES)


def test_training_evaluates(trained):
    _, folder, log = trained
    assert (folder / 'iter_2.pth').is_file()
    losses = [float(x) for x in re.findall(r' loss: (\S+)', log)]
    assert len(losses) == 2 and np.isfinite(losses).all()
    assert re.search(r'coco/bbox_mAP: \S+.*coco/segm_mAP: ', log)


def test_resume_goes_on_where_it_stopped(trained, tmp_path):
    """It needs no published weights, for the checkpoint holds all."""
    base, folder, _ = trained
    config = tmp_path / 'pretrained.py'
    weights = "dict(_delete_=True, type='Pretrained', checkpoint='other')"
    config.write_text(f"_base_ = '{base}'\nmodel = dict(backbone=dict(init_cfg={weights}))")
    more = [*FEW_SCENES, 'train_cfg.max_iters=3', 'default_hooks.checkpoint.interval=3']
    more += ['model.backbone.init_cfg.checkpoint=absent', *without_workers('train', 'val')]
    arguments = ('train', config, '--demo', '--work-dir', tmp_path)
    done = run(*arguments, options=more)
    assert done.returncode == 2 and "no checkpoint 'absent'" in done.stderr
    log = succeed(*arguments, '--resume', folder / 'iter_2.pth', options=more)
    assert 'resumed epoch: 0, iter: 2' in log and 'Iter(train) [3/3]' in log
    log = succeed(*arguments, '--resume', options=more)
    assert 'is finished: 3 of 3 iterations' in log and 'Iter(train) [' not in log


def test_evaluation_writes_predictions_and_pictures(trained, tmp_path):
    config, folder, _ = trained
    log = succeed(
        *('test', config, folder / 'iter_2.pth', '--demo', '--work-dir', tmp_path),
        *('--out', tmp_path / 'found.pkl', '--show-dir', os.path.relpath(tmp_path, ROOT)),
        options=['test_dataloader.dataset.indices=3', *without_workers('test')],
    )
    assert 'coco/bbox_mAP_50' in log
    assert len(pickle.loads((tmp_path / 'found.pkl').read_bytes())) == 3
    pictures = list(tmp_path.glob('*.jpg'))
    assert len(pictures) == 3
    height, width = cv2.imread(str(pictures[0])).shape[:2]
    assert width > 1.5 * height  # the truth on the left, predictions on the right


def test_checkpoint_of_another_config_is_refused(trained, tmp_path):
    _, folder, _ = trained
    config, checkpoint = 'configs/demo_maskrcnn_regionvit.py', folder / 'iter_2.pth'
    done = run_process('test', config, checkpoint, '--demo', '--work-dir', tmp_path)
    assert done.returncode == 2 and 'does not fit the config' in done.stderr
    assert 'Traceback' not in done.stderr and 'iter_2.pth' in done.stderr


def test_a_run_shorter_than_its_warmup_that_finds_nothing(tmp_path):
    """After one step no score passes the threshold: there is an evaluation, but no number."""
    config = tmp_path / 'narrow.py'
    config.write_text(
        f"_base_ = '{ROOT}/configs/retinanet_regionvit_s_1x.py'\n"
        f'model = dict(backbone=dict({NARROW}), neck=dict(in_channels={DIMS}))\n'
    )
    log = succeed(
        *('train', config, '--demo', '--work-dir', tmp_path),
        options=[
            *('demo.max_iters=1', 'demo.batch_size=1', 'val_dataloader.dataset.indices=2'),
            *without_workers('train', 'val'),
        ],
    )
    assert 'Evaluating bbox' in log and 'Evaluating segm' not in log


def test_segmenter_on_the_demo(tmp_path):
    pytest.importorskip('mmseg')
    config = tmp_path / 'semfpn.py'
    config.write_text(SEGMENTER + 'demo = dict(max_iters=2, warmup=1, log_interval=1)\n')
    arguments = ('train', config, '--demo', '--work-dir', tmp_path)
    log = succeed(*arguments, options=[*FEW_SCENES, *without_workers('train', 'val')])
    assert 'mIoU' in log and 'background' in log
    succeed(
        *('test', config, tmp_path / 'iter_2.pth', '--demo', '--work-dir', tmp_path),
        *('--show-dir', tmp_path / 'pictures', '--out', tmp_path / 'found.pkl'),
        options=['test_dataloader.dataset.indices=2', *without_workers('test')],
    )
    assert (tmp_path / 'found.pkl').is_file()
    assert len(list(tmp_path.rglob('pictures/**/*.png'))) == 2


@pytest.fixture(scope='module')
def ade(tmp_path_factory):
    """A data set in ADE20K's own layout; the pixels of class k have the label k, from 1 to 150."""
    root = tmp_path_factory.mktemp('ade') / 'ADEChallengeData2016'
    rng = np.random.default_rng(0)
    # Validation has unlabelled pixels (0), wall (1) and flag (150), and nothing else.
    splits = dict(training=range(0, 151), validation=[0, 1, 150])
    for split, labels in splits.items():
        images, maps = root / 'images' / split, root / 'annotations' / split
        images.mkdir(parents=True)
        maps.mkdir(parents=True)
        for k, (height, width) in enumerate([(96, 130), (140, 105), (64, 128)], 1):
            name = f'ADE_{split[:5]}_{k:08d}'
            pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
            cv2.imwrite(str(images / f'{name}.jpg'), pixels)
            labelled = rng.choice(np.uint8(labels), (height, width))
            cv2.imwrite(str(maps / f'{name}.png'), labelled)
    return root


@pytest.mark.sweep
def test_ade20k_through_the_unmodified_config(ade, tmp_path):
    """A training step and an evaluation; but for its length the run is the recipe's."""
    pytest.importorskip('mmseg')
    log = succeed(
        *('train', 'configs/semfpn_rmt_t_80k.py', '--data-root', ade, '--work-dir', tmp_path),
        options=[
            *('model.backbone.init_cfg=None', 'train_cfg.max_iters=1', 'train_cfg.val_interval=1'),
            *('default_hooks.logger.interval=1', 'default_hooks.checkpoint.save_optimizer=False'),
            *without_workers('train', 'val'),
        ],
    )
    assert re.search(r' loss: \d', log) and re.search(r'mIoU: \d', log)
    assert (tmp_path / 'iter_1.pth').is_file()


def test_ade20k_labels_and_resuming(ade, tmp_path):
    """The recipe's pipelines; only the model is narrower."""
    pytest.importorskip('mmseg')
    config = tmp_path / 'narrow.py'
    config.write_text(
        f"_base_ = '{ROOT}/configs/upernet_focal_t_160k.py'\n"
        f'model = dict(backbone=dict({NARROW_PLAIN}),\n'
        f'             decode_head=dict(in_channels={DIMS}, channels=16),\n'
        f'             auxiliary_head=dict(in_channels={DIMS[2]}, channels=16))\n'
        'train_cfg = dict(max_iters=2, val_interval=2)\n'
        'default_hooks = dict(logger=dict(interval=1))\n'
    )
    arguments = ('train', config, '--data-root', ade, '--work-dir', tmp_path)
    options = without_workers('train', 'val')
    log = succeed(*arguments, options=options)
    losses = [float(x) for x in re.findall(r' loss: (\S+)', log)]
    assert len(losses) == 2 and np.isfinite(losses).all()
    assert (tmp_path / 'iter_2.pth').is_file()
    accuracy = dict(re.findall(r'\| +(\w[\w ]*?) +\| +\S+ +\| +(\S+) +\|', log))
    assert [name for name in accuracy if accuracy[name] != 'nan'] == ['Class', 'wall', 'flag']
    assert len(accuracy) == 151 and re.search(r'mIoU: \d', log)

    log = succeed(*arguments, '--resume', options=['train_cfg.max_iters=3', *options])
    assert 'resumed epoch: 0, iter: 2' in log and 'Iter(train) [3/3]' in log
    assert (tmp_path / 'iter_3.pth').is_file()


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    """A data set in COCO's own layout: 80 classes, crowds, an image without objects."""
    from mmdet.datasets import CocoDataset

    root = tmp_path_factory.mktemp('coco')
    rng = np.random.default_rng(0)
    ids = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    categories = [
        dict(id=i, name=name, supercategory='thing')
        for i, name in zip(ids, CocoDataset.METAINFO['classes'])
    ]
    (root / 'annotations').mkdir()
    for split in ('train2017', 'val2017'):
        (root / split).mkdir()
        images, annotations = [], []
        for image_id, (width, height) in enumerate([(640, 480), (375, 500), (333, 227)], 1):
            name = f'{image_id:012d}.jpg'
            pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
            cv2.imwrite(str(root / split / name), pixels)
            images.append(dict(id=image_id, file_name=name, width=width, height=height))
            for k in range(0 if image_id == 3 else 3):
                x, y, w, h = (int(v) for v in (20 + 60 * k, 30 + 40 * k, 100, 80))
                crowd = int(k == 2)
                polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
                rle = dict(counts=[x * height + y, h, 2 * height - h], size=[height, width])
                rle['counts'].append(height * width - sum(rle['counts']))
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=image_id,
                        category_id=ids[(7 * k + image_id) % 80],
                        bbox=[x, y, w, h],
                        area=w * h,
                        iscrowd=crowd,
                        segmentation=rle if crowd else polygon,
                    )
                )
        content = dict(images=images, annotations=annotations, categories=categories)
        path = root / 'annotations' / f'instances_{split}.json'
        path.write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    'name', ['maskrcnn_regionvit_s_1x', 'retinanet_regionvit_s_1x', 'maskrcnn_rmt_s_3x']
)
def test_coco_through_the_unmodified_pipelines(coco, name, tmp_path):
    """One epoch and an evaluation; the model is narrower, and every box of a few counts."""
    masks, config = 'maskrcnn' in name, tmp_path / 'narrow.py'
    few = {'rpn.max_per_img': 50, 'rcnn.score_thr': 0.0} if masks else {'score_thr': 0.0}
    few = {f'model.test_cfg.{key}': value for key, value in few.items()}
    narrow_config(name, {**few, 'train_cfg.max_epochs': 1}).dump(config)
    arguments = ('train', config, '--data-root', coco, '--work-dir', tmp_path)
    options = ['default_hooks.logger.interval=1', *without_workers('train', 'val')]
    log = succeed(*arguments, options=options)
    losses = [float(x) for x in re.findall(r' loss: (\S+)', log)]
    assert len(losses) == 1 and np.isfinite(losses).all()  # the empty image is left out
    assert 'coco/bbox_mAP: ' in log and ('coco/segm_mAP: ' in log) == masks
    assert (tmp_path / 'epoch_1.pth').is_file()
    if not masks:  # all is done
        assert 'finished: 1 of 1 epochs' in succeed(*arguments, '--resume', options=options)
