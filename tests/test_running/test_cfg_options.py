"""``--cfg-options`` that are read, and those that are refused in one line."""

import argparse

import pytest
from running_tools import ROOT, run

from mmvitbackbones.running import load_config
from mmvitbackbones.running.cfg_options import OptionsAction

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')

MASKRCNN, UPERNET, HTC, CLASSIFIER = (
    'maskrcnn_regionvit_s_1x',
    'upernet_focal_t_160k',
    'htc_vil_s_1x',
    'cls_vil_s_in1k',
)
# What the documentation and the papers' variants ask for, and what classes take unnamed.
KNOWN = [
    (MASKRCNN, 'model.backbone.window_size=14'),
    (MASKRCNN, 'model.backbone.peg=True'),
    (MASKRCNN, 'model.backbone.with_cp=True'),
    (MASKRCNN, 'model.backbone.init_cfg=None'),
    (MASKRCNN, 'model.backbone.init_cfg.checkpoint=my weights.pth'),
    ('maskrcnn_focal_t_1x', 'model.backbone.focal_windows=(21,17,11,7)'),
    (HTC, 'model.roi_head.semantic_head=None'),
    (MASKRCNN, 'auto_scale_lr.enable=True'),
    (MASKRCNN, 'optim_wrapper.optimizer.lr=2e-4'),
    (MASKRCNN, 'optim_wrapper.optimizer.amsgrad=True'),
    (MASKRCNN, 'optim_wrapper.accumulative_counts=4'),
    (MASKRCNN, 'optim_wrapper.clip_grad.max_norm=1'),
    (MASKRCNN, 'optim_wrapper.paramwise_cfg.custom_keys.neck.lr_mult=2'),
    (MASKRCNN, 'train_dataloader.batch_size=1'),
    (MASKRCNN, 'train_dataloader.prefetch_factor=2'),
    (MASKRCNN, 'train_dataloader.dataset.indices=5'),
    (MASKRCNN, 'train_dataloader.dataset.pipeline.0.to_float32=True'),
    (MASKRCNN, 'train_cfg.max_epochs=2'),
    (MASKRCNN, 'param_scheduler.0.end=100'),
    (MASKRCNN, 'randomness.seed=3'),
    (MASKRCNN, 'load_from=x.pth'),
    (MASKRCNN, 'find_unused_parameters=True'),
    (MASKRCNN, 'env_cfg.cudnn_benchmark=True'),
    (MASKRCNN, 'model.test_cfg.rcnn.score_thr=0.1'),
    (MASKRCNN, 'model.roi_head.bbox_head.num_classes=3'),
    (MASKRCNN, 'model.neck.norm_cfg.type=BN'),
    (MASKRCNN, 'val_evaluator.classwise=True'),
    (MASKRCNN, 'default_hooks.checkpoint.max_keep_ckpts=3'),
    (MASKRCNN, 'default_hooks.logger=None'),
    (
        MASKRCNN,
        'default_hooks.stop.type=EarlyStoppingHook default_hooks.stop.monitor=coco/bbox_mAP',
    ),
    (MASKRCNN, 'custom_hooks=[]'),
    (MASKRCNN, 'visualizer.vis_backends.0.save_dir=x'),
    (UPERNET, 'model.test_cfg.mode=slide model.test_cfg.stride=(341,341)'),
    (UPERNET, 'model.decode_head.dropout_ratio=0.2'),
    (CLASSIFIER, 'model.head.topk=(1,5)'),
    (CLASSIFIER, 'model.backbone.position=rpb'),
    (MASKRCNN, 'demo.max_iters=500 demo.batch_size=4'),
]
UNKNOWN = 'there is no such setting: '
REFUSED = {
    # Names.
    'modle.backbone.peg=True': f'{UNKNOWN}did you mean model.backbone.peg?',
    'optim_wraper.optimizer.lr=1': f'{UNKNOWN}did you mean optim_wrapper.optimizer.lr?',
    'loadfrom=x.pth': f'{UNKNOWN}did you mean load_from?',
    'model.bakbone.peg=True': f'{UNKNOWN}did you mean model.backbone.peg?',
    'model.backbone.nonsense=3': f'{UNKNOWN}model.backbone takes arch, attn_drop_rate, drop_path_',
    'model.backbone.windowsize=7': f'{UNKNOWN}did you mean model.backbone.window_size?',
    'optim_wrapper.optimizer.wd=1': f'{UNKNOWN}optim_wrapper.optimizer takes amsgrad, betas,',
    'train_dataloader.bach_size=1': f'{UNKNOWN}did you mean train_dataloader.batch_size?',
    'train_cfg.max_epoch=2': f'{UNKNOWN}did you mean train_cfg.max_epochs?',
    'model.test_cfg.rcnn.scor_thr=0.1': f'{UNKNOWN}did you mean model.test_cfg.rcnn.score_thr?',
    'model.neck.out_chanels=8': f'{UNKNOWN}did you mean model.neck.out_channels?',
    'default_hooks.chekpoint.interval=3': 'did you mean default_hooks.checkpoint.interval?',
    'default_hooks.checkpoint.intervall=3': 'did you mean default_hooks.checkpoint.interval?',
    'val_evaluator.metrics=bbox': f'{UNKNOWN}did you mean val_evaluator.metric?',
    'randomness.sede=1': f'{UNKNOWN}did you mean randomness.seed?',
    'auto_scale_lr.enabled=True': f'{UNKNOWN}did you mean auto_scale_lr.enable?',
    # Places.
    'param_scheduler.7.end=3': 'param_scheduler is a list of 2: its parts are param_scheduler.0 to',
    'param_scheduler.end=3': 'param_scheduler is a list of 2',
    'model.backbone.arch.depths=[1,1]': "model.backbone.arch is 'small', without settings of it",
    'load_from.file=x': 'load_from is None; give load_from.type, too',
    'model.backbone.init_cfg=None model.backbone.init_cfg.checkpoint=x': 'init_cfg=None leaves no',
    # Values.
    'optim_wrapper.optimizer.lr=fast': 'lr=fast: it takes a number (the config has 0.0001)',
    'train_dataloader.batch_size=two': 'it takes a number (the config has 2)',
    'train_dataloader.batch_size=True': 'it takes a number (the config has 2)',
    'auto_scale_lr.enable=maybe': 'it takes True or False (the config has False)',
    'model.backbone=RegionViT': 'it takes settings of its own (the config has a group of settings)',
    'model.backbone.arch=small,tiny': "it takes one text, without commas (the config has 'small')",
    'model.backbone=None': 'model.backbone=None: it needs a type',
    'optim_wrapper.type=X': 'optim_wrapper.type=X: no class has that name',
    'model.backbone.type=RegionVit': 'no class has that name',
    'model=None': 'model=None: a run needs a model',
    # What is no option.
    'model.backbone.peg': "takes KEY=VALUE, such as model.backbone.window_size=14; got 'model.back",
    '=3': "takes KEY=VALUE, such as model.backbone.window_size=14; got '=3'",
    'model..peg=1': "got 'model..peg=1'",
    'train_dataloader.dataset.indices=[1,2': "the brackets of '[1,2' do not match",
    'model.backbone.arch=(1,[2)': "the brackets of '(1,[2)' do not match",
}


def split(options):
    """Options of one line; a value may have spaces."""
    parts = []
    for part in options.split(' '):
        if '=' in part or not parts:
            parts.append(part)
        else:
            parts[-1] += f' {part}'
    return parts


@pytest.mark.parametrize('name, options', KNOWN)
def test_what_is_known_is_set(name, options):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction)
    given = parser.parse_args(['--cfg-options', *split(options)]).cfg_options
    cfg = load_config(f'{ROOT}/configs/{name}.py', given, demo='demo.' in options)
    for key, value in given.items():
        node = cfg
        for part in key.split('.') if not key.startswith('demo.') else ():
            node = node[int(part) if part.isdigit() else part]
        assert node in (value, cfg)


@pytest.mark.parametrize('options', REFUSED)
def test_what_is_refused(options, tmp_path):
    done = run(
        *('train', f'configs/{MASKRCNN}.py', '--work-dir', tmp_path / 'work'),
        options=split(options),
    )
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert REFUSED[options] in last and '--cfg-options' in last
    assert not (tmp_path / 'work').exists()


def test_a_htc_without_its_semantic_branch():
    cfg = load_config(f'{ROOT}/configs/{HTC}.py', {'model.roi_head.semantic_head': None})
    assert not any(step.get('with_seg') for step in cfg.train_dataloader.dataset.pipeline)


def test_a_path_keeps_its_spaces(tmp_path):
    done = run(
        *('train', f'configs/{MASKRCNN}.py', '--demo', '--work-dir', tmp_path),
        options=['load_from=my weights.pth'],
    )
    assert done.returncode == 2 and "there is no checkpoint 'my weights.pth'" in done.stderr


@pytest.mark.parametrize('name', [MASKRCNN, UPERNET, CLASSIFIER])
def test_an_open_class_takes_anything(name):
    """What a class hands on to others cannot be known: EMAHook gives it to the average."""
    options = {'default_hooks.mean.type': 'EMAHook', 'default_hooks.mean.gamma': 1}
    assert load_config(f'{ROOT}/configs/{name}.py', options).default_hooks.mean.gamma == 1
