"""Classifiers through the tools, on data in ImageNet's layout and on the demo's."""

import re

import cv2
import golden_cases
import numpy as np
import pytest
import torch

pytest.importorskip('mmpretrain')

from running_tools import run, succeed


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


@pytest.mark.parametrize('name', ['cls_rmt_t_in1k', 'cls_regionvit_s_plus_in1k'])
def test_imagenet_through_the_unmodified_config(imagenet, name, tmp_path):
    """One epoch and an evaluation; but for its length the run is the recipe's."""
    log = succeed(
        *('train', f'configs/{name}.py', '--data-root', imagenet, '--work-dir', tmp_path),
        options=[
            *('train_cfg.max_epochs=1', 'default_hooks.logger.interval=1', 'param_scheduler=None'),
            'default_hooks.checkpoint.save_optimizer=False',
        ],
    )
    losses = [float(x) for x in re.findall(r' loss: (\S+)', log)]
    assert losses and np.isfinite(losses).all()
    assert 'accuracy/top1: ' in log and 'accuracy/top5: ' in log
    assert (tmp_path / 'epoch_1.pth').is_file()


def test_missing_imagenet_is_named(tmp_path):
    done = run('train', 'configs/cls_vil_t_in1k.py', '--data-root', tmp_path / 'nowhere')
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert 'ImageNet-1K is not there' in done.stderr and 'meta/train.txt' in done.stderr


def test_a_published_classifier_is_evaluated_as_it_is(imagenet, tmp_path):
    """Labels are what the file's own logits say, so all three images are right."""
    from mmengine.registry import MODELS, init_default_scope

    from mmvitbackbones import get_config
    from mmvitbackbones.checkpoints import load_published

    file = tmp_path / 'focal-tiny-is224-ws7.pth'
    torch.save(dict(model=golden_cases.GoldenCase('focal_tiny_cls').weights()), file)
    config = 'configs/cls_focal_t_in1k.py'
    log = succeed(
        *('test', config, file, '--data-root', imagenet, '--work-dir', tmp_path),
        *('--out', tmp_path / 'found.pkl'),
    )
    assert 'published Focal Transformer weights' in log and 'accuracy/top1: ' in log

    import pickle

    found = pickle.loads((tmp_path / 'found.pkl').read_bytes())
    cfg = get_config('cls_focal_t_in1k')
    init_default_scope('mmpretrain')
    model = MODELS.build(cfg.model).eval()
    load_published(model, file)
    from mmpretrain.registry import TRANSFORMS

    steps = [TRANSFORMS.build(step) for step in cfg.test_dataloader.dataset.pipeline]
    for k, result in enumerate(found):
        item = dict(img_path=str(imagenet / 'val' / f'ILSVRC2012_val_{k:08d}.JPEG'), gt_label=0)
        for step in steps:
            item = step(item)
        preprocessor = cfg.data_preprocessor
        mean, std = (torch.tensor(preprocessor[key])[:, None, None] for key in ('mean', 'std'))
        x = (item['inputs'].flip(0).float() - mean) / std
        with torch.no_grad():
            expected = model(x[None]).softmax(1)[0]
        torch.testing.assert_close(result['pred_score'], expected, rtol=1e-3, atol=1e-5)


def test_a_checkpoint_of_another_family_is_refused(tmp_path):
    file = tmp_path / 'other.pth'
    torch.save(dict(model=golden_cases.GoldenCase('rmt_tiny_cls').weights()), file)
    done = run('test', 'configs/cls_focal_t_in1k.py', file, '--demo', '--work-dir', tmp_path)
    assert done.returncode == 2 and 'does not fit the config' in done.stderr


def test_demo(tmp_path):
    """Trains, evaluates, goes on where it stopped, and is tested with pictures."""
    options = ['demo.log_interval=1', 'demo.batch_size=4', 'val_dataloader.dataset.indices=3']
    arguments = ('train', 'configs/demo_cls_vil.py', '--demo', '--work-dir', tmp_path)
    log = succeed(*arguments, options=[*options, 'demo.max_iters=1'])
    assert 'accuracy/top1: ' in log and (tmp_path / 'iter_1.pth').is_file()
    log = succeed(*arguments, '--resume', options=[*options, 'demo.max_iters=2'])
    assert 'resumed epoch: 0, iter: 1' in log and 'Iter(train) [2/2]' in log
    succeed(
        *('test', 'configs/demo_cls_vil.py', tmp_path / 'iter_2.pth', '--demo'),
        *('--work-dir', tmp_path, '--show-dir', tmp_path / 'pictures'),
        options=['test_dataloader.dataset.indices=2'],
    )
    assert len(list((tmp_path / 'pictures').glob('*.png'))) == 2
