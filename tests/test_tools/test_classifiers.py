"""Classifiers through the tools, on data in ImageNet's layout and on the demo's."""

import os
import pickle
import re

import cv2
import golden_cases
import numpy as np
import pytest
import torch

pytest.importorskip('mmpretrain')

from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmpretrain import ImageClassificationInferencer, get_model
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from mmpretrain.registry import TRANSFORMS
from running_tools import run, succeed, train_demo, without_workers

from mmvitbackbones import get_config
from mmvitbackbones.checkpoints import load_published, read_checkpoint
from mmvitbackbones.running import load_config


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory):
    """A data set in ImageNet's layout with meta files; two sizes and a narrow image."""
    root = tmp_path_factory.mktemp('data') / 'imagenet'
    rng = np.random.default_rng(0)
    (root / 'meta').mkdir(parents=True)
    for split in ('train', 'val'):
        (root / split).mkdir()
        lines = []
        for k, (height, width) in enumerate([(300, 400), (256, 256), (500, 90)]):
            name = f'ILSVRC2012_{split}_{k:08d}.JPEG'
            pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
            cv2.imwrite(str(root / split / name), pixels)
            lines.append(f'{name} {(7 * k) % 1000}')
        (root / 'meta' / f'{split}.txt').write_text('\n'.join(lines))
    return root


@pytest.mark.parametrize(
    'name', ['cls_regionvit_s_plus_in1k', 'cls_focal_t_in1k', 'cls_rmt_t_in1k', 'cls_vil_t_in1k']
)
def test_imagenet_through_the_unmodified_config(imagenet, name, tmp_path):
    """Two epochs, one of warm-up; but for their number the run is the recipe's."""
    log = succeed(
        *('train', f'configs/{name}.py', '--data-root', imagenet, '--work-dir', tmp_path),
        options=[
            *('train_cfg.max_epochs=2', 'param_scheduler.0.end=1', 'param_scheduler.1.begin=1'),
            *('default_hooks.logger.interval=1', 'default_hooks.checkpoint.interval=2'),
            *('default_hooks.checkpoint.save_optimizer=False', 'train_cfg.val_interval=2'),
            *without_workers('train', 'val'),
        ],
    )
    losses = [float(x) for x in re.findall(r' loss: (\S+)', log)]
    assert len(losses) == 2 and np.isfinite(losses).all()
    assert 'accuracy/top1: ' in log and 'accuracy/top5: ' in log
    assert (tmp_path / 'epoch_2.pth').is_file()


@pytest.mark.parametrize(
    'name, side', [('cls_regionvit_b_in21k', 224), ('cls_regionvit_b_384_in1k', 384)]
)
def test_training_images_in_folders_of_classes(imagenet, name, side, tmp_path):
    image = imagenet / 'train' / 'ILSVRC2012_train_00000000.JPEG'
    for k in range(1000):
        folder = tmp_path / 'train' / f'n{k:08d}'
        folder.mkdir(parents=True)
        os.link(image, folder / f'{folder.name}_1.JPEG')
    cfg = load_config(f'configs/{name}.py', data_root=str(tmp_path))
    init_default_scope('mmpretrain')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert [dataset.get_data_info(k)['gt_label'] for k in range(len(dataset))] == [*range(1000)]
    assert dataset[0]['inputs'].shape == (3, side, side)


def test_a_published_classifier_is_evaluated_as_it_is(imagenet, tmp_path):
    """By the tool, as by mmpretrain's inferencer and by hand."""

    file = tmp_path / 'focal-tiny-is224-ws7.pth'
    torch.save(dict(model=golden_cases.GoldenCase('focal_tiny_cls').weights()), file)
    log = succeed(
        *('test', 'configs/cls_focal_t_in1k.py', file, '--data-root', imagenet),
        *('--work-dir', tmp_path, '--out', tmp_path / 'found.pkl'),
        options=without_workers('test'),
    )
    assert 'published Focal Transformer weights' in log and 'accuracy/top1: ' in log
    found = pickle.loads((tmp_path / 'found.pkl').read_bytes())
    assert len(found) == 3

    cfg = get_config('cls_focal_t_in1k')
    model = get_model(cfg)
    load_published(model, file)
    images = [str(imagenet / 'val' / f'ILSVRC2012_val_{k:08d}.JPEG') for k in range(3)]
    inferred = ImageClassificationInferencer(model)(images)
    steps = [TRANSFORMS.build(step) for step in cfg.test_dataloader.dataset.pipeline]
    preprocessor = cfg.data_preprocessor
    mean, std = (torch.tensor(preprocessor[key])[:, None, None] for key in ('mean', 'std'))
    for image, one, other in zip(images, found, inferred):
        item = dict(img_path=image, gt_label=0)
        for step in steps:
            item = step(item)
        x = (item['inputs'].flip(0).float() - mean) / std
        with torch.no_grad():
            expected = model(x[None]).softmax(1)[0]
        torch.testing.assert_close(one['pred_score'], expected, rtol=1e-3, atol=1e-5)
        scores = torch.from_numpy(other['pred_scores'])
        torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-5)
        assert other['pred_label'] == expected.argmax()
        assert other['pred_class'] == IMAGENET_CATEGORIES[expected.argmax()]


@pytest.mark.parametrize(
    'case, words',
    [
        ('rmt_tiny_cls', 'holds RMT weights, the model is Focal Transformer'),
        ('focal_tiny_cls', 'its heads are for 1000 classes, those of the config for 10'),
    ],
)
def test_what_cannot_be_evaluated_is_refused(case, words, tmp_path):
    """Another family; a head for a thousand classes where there are ten digits."""
    file = tmp_path / 'published.pth'
    torch.save(dict(model=golden_cases.GoldenCase(case).weights()), file)
    done = run('test', 'configs/cls_focal_t_in1k.py', file, '--demo', '--work-dir', tmp_path)
    assert done.returncode == 2 and words in done.stderr


def test_finetuning(tmp_path):
    """From a published file, with averaged weights; goes on where it stopped; is evaluated."""
    published = golden_cases.GoldenCase('rmt_tiny_cls').weights()
    torch.save(dict(model=published), tmp_path / 'RMT-T.pth')
    config = 'configs/cls_rmt_t_in1k.py'
    options = ['demo.log_interval=1', 'demo.batch_size=4', 'val_dataloader.dataset.indices=3']
    options += [f'load_from={tmp_path / "RMT-T.pth"}', *without_workers('train', 'val')]
    arguments = ('train', config, '--demo', '--work-dir', tmp_path / 'work')
    log = succeed(*arguments, options=[*options, 'demo.max_iters=1'])
    assert 'published RMT weights' in log and 'accuracy/top1: ' in log
    trained = read_checkpoint(tmp_path / 'work' / 'iter_1.pth')
    for kind in ('state_dict', 'ema_state_dict'):  # after one step at the start of a warm-up
        (weight,) = (w for k, w in trained[kind].items() if k.endswith('neck.proj.weight'))
        torch.testing.assert_close(weight, published['proj.weight'], rtol=0, atol=1e-2)
    log = succeed(*arguments, '--resume', options=[*options, 'demo.max_iters=2'])
    assert 'resumed epoch: 0, iter: 1' in log and 'Iter(train) [2/2]' in log

    state = read_checkpoint(tmp_path / 'work' / 'iter_2.pth')['state_dict']
    torch.save(state, tmp_path / 'bare.pth')
    found = []
    for file in (tmp_path / 'work' / 'iter_2.pth', tmp_path / 'bare.pth'):
        succeed(
            *('test', config, file, '--demo', '--work-dir', tmp_path),
            *('--show-dir', tmp_path / file.stem, '--out', tmp_path / 'found.pkl'),
            options=['test_dataloader.dataset.indices=2', *without_workers('test')],
        )
        assert len(list((tmp_path / file.stem).glob('*.png'))) == 2
        found.append([r['pred_score'] for r in pickle.loads((tmp_path / 'found.pkl').read_bytes())])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize(
    'family, detector',
    [
        ('regionvit', 'maskrcnn_regionvit_s_1x'),
        ('focal', 'retinanet_focal_t_1x'),
        ('rmt', 'retinanet_rmt_t_1x'),
        ('vil', 'maskrcnn_vil_s_1x'),
    ],
)
def test_a_trained_classifier_starts_a_detector(family, detector, tmp_path):
    """Every family's demo trains, and its checkpoint gives a detector the same features."""
    pytest.importorskip('mmdet')
    name = f'demo_cls_{family}'
    train_demo(name, tmp_path, ['demo.batch_size=2'])
    file = tmp_path / 'iter_1.pth'
    classifier = load_config(f'configs/{name}.py').model.backbone
    cfg = load_config(f'configs/{detector}.py', {'model.backbone.init_cfg.checkpoint': str(file)})
    cfg.model.backbone.pop('focal_windows', None)  # larger ones have resized tables
    for key in ('arch', 'position', 'pretrain_img_size'):
        if key in classifier:
            cfg.model.backbone[key] = classifier[key]
    cfg.model.neck.in_channels = classifier.arch.dims[-len(cfg.model.neck.in_channels) :]
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    model.init_weights()

    state = read_checkpoint(file)['state_dict']
    by_hand = MODELS.build(dict(cfg.model.backbone, init_cfg=None))
    report = by_hand.load_state_dict(
        {key[9:]: value for key, value in state.items() if key.startswith('backbone.')},
        strict=False,
    )
    assert not report.unexpected_keys
    assert all(key.startswith('out_norms.') for key in report.missing_keys)
    x = torch.randn(1, 3, 96, 70)
    with torch.no_grad():
        maps = model.backbone.eval()(x)
        for found, expected in zip(maps, by_hand.eval()(x), strict=True):
            assert torch.equal(found, expected)
        if family != 'regionvit':  # whose output norms are between its stages
            own = MODELS.build(dict(classifier, init_cfg=None))
            own.load_state_dict({k[9:]: v for k, v in state.items() if k.startswith('backbone.')})
            (last,) = own.eval()(x)
            if cfg.model.backbone.get('out_norm', 'output'):
                last = torch.nn.functional.layer_norm(last.movedim(1, -1), last.shape[1:2])
                last = last.movedim(-1, 1)
            torch.testing.assert_close(maps[-1], last, rtol=1e-4, atol=1e-4)
