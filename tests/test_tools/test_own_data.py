"""``--data FOLDER``: a user's own data set, from the first step to the last prediction."""

import re
import shutil
from pathlib import Path

import own_data_folders as folders
import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')

from golden_cases import GoldenCase
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from narrow_configs import narrow_own_config
from running_tools import run, succeed, train_demo

from mmvitbackbones.running import own_data
from mmvitbackbones.zoo import get_config

CASES = {
    'maskrcnn_rmt_t_1x': (folders.make_coco, ['64', '96'], 'coco/segm_mAP'),
    'retinanet_vil_s_1x': (folders.make_coco_export, ['64', '96'], 'coco/bbox_mAP'),
    'retinanet_rmt_t_1x': (folders.make_yolo, ['64', '96'], 'coco/bbox_mAP'),
    'upernet_rmt_s_160k': (folders.make_maps, ['64'], 'mIoU'),
    'cls_rmt_t_in1k': (folders.make_class_folders, ['64'], 'accuracy/top1'),
}
ANY_BOX = dict.fromkeys(
    ['retinanet_vil_s_1x', 'retinanet_rmt_t_1x'], ['model.test_cfg.score_thr=0.0']
)


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    """A narrow model's config under the name of the zoo's, a data set, an image size, a metric."""
    make, size, metric = CASES[request.param]
    data = tmp_path / 'Eigene Daten ä'
    data.mkdir()
    make(data)
    config = tmp_path / f'{request.param}.py'
    narrow_own_config(request.param).dump(config)
    return config, data, size, metric


def test_from_training_to_resuming(case, tmp_path):
    config, data, size, metric = case
    steps = 15 if config.stem.startswith('cls_') else 3  # 6 images, or of each of 5 classes
    work = tmp_path / 'work'
    options = [config, '--data', data, '--work-dir', work, '--image-size', *size]
    options += ['--batch-size', 2, '--workers', 0]
    any_box = ANY_BOX.get(config.stem, [])
    said = succeed('train', *options, '--epochs', 2, options=any_box)
    assert f'{data}: ' in said and f'2 epochs of {steps} steps with 2 images each' in said
    assert 'start: from scratch' in said and metric in said
    checkpoint = work / (work / 'last_checkpoint').read_text()

    # What it ran with lies beside the checkpoints, is enough, and stays.
    left = (work / config.name).read_text()
    tta = [] if config.stem.startswith('cls_') else ['--tta']
    log = succeed('test', work / config.name, checkpoint, '--work-dir', work, *tta)
    assert metric in log
    log = succeed(
        *('test', config, checkpoint, '--data', without_training(data, tmp_path / 'other')),
        *('--work-dir', work, '--image-size', *size),
        options=any_box,
    )
    assert metric in log and (work / config.name).read_text() == left

    said = succeed('predict', checkpoint, data, '--out', tmp_path / 'predictions')
    assert re.search(r'\d+ images predicted on', said)

    # From half-way; a schedule of another length would end in a rate of 0.
    half = next(work.glob('epoch_1.pth'), work / f'iter_{steps}.pth')
    done = run('train', *options, '--epochs', 3, '--resume', half, options=any_box)
    assert done.returncode == 2 and f'is of a training of {2 * steps} steps' in done.stderr
    assert (work / config.name).read_text() == left
    log = succeed(
        *('train', *options, '--epochs', 2, '--resume', half),
        options=[*any_box, 'default_hooks.logger.interval=1'],
    )
    assert 'start: ' not in log
    rates = re.findall(r'\blr: (\S+)', log.partition('resumed epoch')[2])
    assert any(float(rate) > 0 for rate in rates)


def without_training(data, folder):
    shutil.copytree(data, folder, ignore=shutil.ignore_patterns('*train*'))
    return folder


def settings(name, data, *more, options=()):
    """The config as it would run."""
    done = run(
        *('train', f'configs/{name}.py', '--data', data, *more, '--print-config'),
        *('--work-dir', data.parent / 'work'),
        options=options,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr, Config.fromstring(done.stdout, '.py')


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    folder = tmp_path_factory.mktemp('coco')
    folders.make_coco(folder)
    return folder


@pytest.mark.parametrize(
    'name',
    ['cascade_maskrcnn_focal_t_3x', 'htc_vil_s_1x', 'sparsercnn_focal_t_3x', 'dyhead_focal_l_2x'],
)
def test_every_head_gets_the_classes(name, coco):
    said, cfg = settings(name, coco)
    heads = [cfg.model.get('bbox_head'), *(cfg.model.get('roi_head') or {}).values()]
    flat = [head for part in heads for head in (part if isinstance(part, list) else [part])]
    counts = [
        head['num_classes'] for head in flat if isinstance(head, dict) and 'num_classes' in head
    ]
    assert counts and set(counts) == {3}
    assert len(cfg.test_dataloader.dataset.metainfo.classes) == 3
    assert ('no semantic branch' in said) == name.startswith('htc_')


def test_cfg_options_go_before(coco):
    said, cfg = settings(
        'retinanet_regionvit_s_1x', coco, options=['train_dataloader.batch_size=1']
    )
    assert cfg.train_dataloader.batch_size == 1
    assert 'start: from scratch. Better: tools/download.py RetinaNet_1x_RegionViT-S.pth' in said


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--demo'], 'not allowed with argument'),
        (['--data-root', 'x'], 'not allowed with argument'),
        (['--image-size', '64'], 'takes SHORT LONG for a detector'),
        (['--epochs', '0'], 'must be at least 1'),
        (['--workers', '-1'], '--workers must be at least 0'),
        (['--save-config', 'x.txt'], '--save-config must end with .py'),
        (['--cfg-options', 'train_cfg.max_epochs=6'], 'give --epochs instead of train_cfg.max_ep'),
        (['--cfg-options', 'load_from=mine.pth'], "there is no checkpoint 'mine.pth'"),
    ],
)
def test_options_that_do_not_fit(arguments, words, coco):
    done = run(
        'train',
        'configs/retinanet_rmt_t_1x.py',
        '--data',
        coco,
        *arguments,
        '--work-dir',
        coco / 'w',
    )
    assert done.returncode == 2 and words in done.stderr


@pytest.mark.parametrize('option', ['--epochs', '--image-size', '--batch-size', '--workers'])
def test_options_of_own_data_alone(option):
    done = run('train', 'configs/retinanet_rmt_t_1x.py', '--demo', option, '2')
    assert done.returncode == 2 and f'{option} goes with --data' in done.stderr


@pytest.mark.parametrize(
    'make, name, words',
    [
        (folders.make_yolo, 'htc_vil_s_1x', 'boxes without masks.*configs/retinanet_vil_s_1x.py'),
        (folders.make_maps, 'maskrcnn_rmt_t_1x', 'for segmentation .*such as semfpn_regionvit'),
        (folders.make_coco, 'cls_rmt_t_in1k', 'for detection .*such as maskrcnn_regionvit_s_1x'),
    ],
)
def test_data_of_another_kind(make, name, words, tmp_path):
    make(tmp_path)
    done = run('train', f'configs/{name}.py', '--data', tmp_path, '--work-dir', tmp_path / 'w')
    assert done.returncode == 2 and re.search(words, done.stderr), done.stderr


def test_a_published_start_is_written_for_others(coco, tmp_path, monkeypatch):
    """Under our names, which OpenMMLab's tools load."""
    config, checkpoints = tmp_path / 'maskrcnn_regionvit_s_1x.py', tmp_path / 'checkpoints'
    get_config('maskrcnn_regionvit_s_1x').dump(config)
    checkpoints.mkdir()
    weights = GoldenCase('det_maskrcnn_regionvit_small_exact').weights()
    torch.save(dict(model=weights), checkpoints / 'MaskRCNN_1x_RegionViT-S.pth')
    monkeypatch.setattr(own_data, 'FOLDER', checkpoints)
    saved = tmp_path / 'saved.py'
    options = ('--data', coco, '--work-dir', tmp_path / 'work', '--save-config', saved)
    said = succeed('train', config, *options)
    for part in ('MaskRCNN_1x_RegionViT-S.pth, which is published', 'heads for 80 classes there'):
        assert part in said
    cfg = Config.fromfile(saved)
    assert cfg.load_from == str(tmp_path / 'saved_start.pth') and cfg.published_settings
    state = torch.load(cfg.load_from, weights_only=True)['state_dict']
    expected = weights['proposal_generator.rpn_head.conv.weight']
    assert torch.equal(state['rpn_head.rpn_conv.weight'], expected)
    done = run('train', config, *options)
    assert done.returncode == 2 and 'is there already' in done.stderr


def test_other_classes_than_the_checkpoints_are_refused(coco, tmp_path):
    train_demo('demo_maskrcnn_rmt', tmp_path)
    checkpoint = next(tmp_path.glob('*.pth'))
    done = run(
        'test', 'configs/demo_maskrcnn_rmt.py', checkpoint, '--data', coco, '--work-dir', tmp_path
    )
    assert done.returncode == 2
    assert 'was trained for the classes zero, one, ' in done.stderr


def test_pictures_without_objects_are_not_counted(tmp_path):
    """They are left out of the training, so that the schedule must not wait for them."""
    folders.make_yolo(tmp_path, train=8)
    labels = sorted(tmp_path.rglob('train/**/*.txt')) or sorted(tmp_path.rglob('*.txt'))
    full = [path for path in labels if path.read_text().strip() and 'train' in str(path)]
    for path in full[2:]:
        path.write_text('')
    said, cfg = settings('retinanet_rmt_t_1x', tmp_path, '--batch-size', 1, '--epochs', 5)
    assert '6 images have no objects: left out of the training' in said
    assert '5 epochs of 2 steps with 1 images each' in said
    assert cfg.param_scheduler[-1]['end'] == 10


def test_nothing_to_resume_from_is_a_start(coco):
    said, cfg = settings('retinanet_regionvit_s_1x', coco, '--resume')
    assert 'start: from scratch' in said and 'the training starts anew' in said
    assert not cfg.resume and cfg.model.backbone.init_cfg is None


def test_resuming_with_other_classes_is_refused(coco, tmp_path):
    config, other = tmp_path / 'retinanet_rmt_t_1x.py', tmp_path / 'other'
    narrow_own_config('retinanet_rmt_t_1x').dump(config)
    options = ['--image-size', 64, 96, '--workers', 0, '--work-dir', tmp_path / 'work']
    succeed('train', config, '--data', coco, '--epochs', 1, *options)
    left = (tmp_path / 'work' / config.name).read_text()
    shutil.copytree(coco, other)
    for path in (other / 'annotations').iterdir():
        path.write_text(path.read_text().replace('"dog"', '"cat"'))
    done = run('train', config, '--data', other, '--epochs', 1, *options, '--resume')
    assert done.returncode == 2 and 'was trained for the classes Straßenbahn, ' in done.stderr
    assert (tmp_path / 'work' / config.name).read_text() == left


def test_what_was_set_by_hand_goes_before(coco):
    said, cfg = settings(
        'retinanet_regionvit_s_1x',
        coco,
        options=['optim_wrapper.optimizer.lr=2e-4'],
    )
    assert cfg.optim_wrapper.optimizer.lr == 2e-4 and 'learning rate' not in said


def test_folders_are_the_classes(tmp_path):
    """Numbered in the order of their names, in each split."""
    folders.make_class_folders(tmp_path)
    _, cfg = settings('cls_focal_t_in1k', tmp_path)
    init_default_scope('mmpretrain')
    names = sorted(path.name for path in (tmp_path / 'train').iterdir())
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        dataset = DATASETS.build(loader.dataset)
        assert [*dataset.CLASSES] == names
        for place in range(len(dataset)):
            info = dataset.get_data_info(place)
            assert Path(info['img_path']).parent.name == names[info['gt_label']]
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 5
