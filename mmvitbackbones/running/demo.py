"""Turn any config into one that runs on handwritten digits, or scenes of them, on a CPU."""

from __future__ import annotations

import os.path as osp
from collections.abc import Collection
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from ..checkpoints.reading import is_absent
from ..datasets.digit_scenes import CLASSES, PALETTE, SEMANTIC_CLASSES
from ..datasets.digits import SIDE as DIGIT_SIDE
from .nodes import dicts, set_num_classes

_Part = dict[str, Any]  # a part of a config

# What a config may set in a dict named ``demo``, and what holds where it does not.
# ``size``: scenes are resized to fit a square of this side in pixels.
DEFAULTS = dict(max_iters=100, batch_size=2, warmup=20, log_interval=10, size=256)


def use_demo_data(cfg: Config, root: str) -> None:
    """Point a detection or segmentation config at the digit scenes, a classifier at the digits.

    Data, image size, classes, schedule and the number of proposals become those of the demo; the
    model stays the config's. A dict named ``demo`` in the config overrides :data:`DEFAULTS`.

    Args:
        cfg (Config): The config, changed in place.
        root (str): Folder that :func:`mmvitbackbones.datasets.make_digit_scenes` wrote, or for a
            classifier :func:`mmvitbackbones.datasets.make_digits`.

    Raises:
        ValueError: If the config is of another toolbox, or ``demo`` has unknown keys.
    """
    settings = _settings(cfg.get('demo', {}))
    size = settings.pop('size')
    scope = cfg.get('default_scope')
    if scope == 'mmdet':
        train, val, metric = _detection_data(cfg, root, size)
        classes = len(CLASSES)
    elif scope == 'mmseg':
        train, val, metric = _segmentation_data(cfg, root, size)
        classes = len(SEMANTIC_CLASSES)
    elif scope == 'mmpretrain':
        train, val, metric = _classification_data(cfg, root)
        classes = len(CLASSES)
    else:
        raise ValueError(
            f'--demo runs configs of mmdet, mmseg and mmpretrain, got default_scope={scope!r}'
        )
    set_num_classes(cfg.model, classes)
    for part in dicts(cfg.model):
        if part.get('semantic_head'):  # HTC's, which learns the background, too
            part['semantic_head']['num_classes'] = len(SEMANTIC_CLASSES)
    _cheaper_proposals(cfg.model)
    # Scenes may differ in size, digits do not.
    val_batch_size = settings['batch_size'] if scope == 'mmpretrain' else 1
    _set_data(cfg, train, val, metric, settings['batch_size'], val_batch_size)
    _set_schedule(cfg, **settings)


def _settings(demo: object) -> dict[str, int]:
    if not isinstance(demo, dict) or not set(demo) <= set(DEFAULTS):
        raise ValueError(f'demo must be a dict of {", ".join(DEFAULTS)}, got {demo!r}')
    settings = {**DEFAULTS, **demo}
    for name, value in settings.items():
        least = dict(warmup=0, size=32).get(name, 1)
        if type(value) is not int or value < least:
            raise ValueError(f'demo.{name} must be an integer of at least {least}, got {value!r}')
    # A run shorter than the warm-up is still a run.
    settings['warmup'] = min(settings['warmup'], settings['max_iters'] // 2)
    return settings


def drop_absent_weights(cfg: Config, keep: Collection[str] = ()) -> None:
    """Leave out weights to start from that are not there, and say so.

    Args:
        cfg (Config): The config, changed in place.
        keep (Collection[str]): Options that were given by hand, by dotted names: what they name is
            left as it is.
    """

    def must_go(path: str) -> bool:
        absent = is_absent(path)
        if absent:
            print_log(f'{path} is not there: the demo does without')
        return absent

    if cfg.get('load_from') and 'load_from' not in keep and must_go(cfg.load_from):
        cfg.load_from = None
    if any(option.startswith('model.backbone.init_cfg') for option in keep):
        return
    for part in dicts(cfg.model):
        init = part.get('init_cfg')
        if isinstance(init, dict) and init.get('type') == 'Pretrained':
            if must_go(init['checkpoint']):
                part['init_cfg'] = None


def _detection_data(cfg: Config, root: str, size: int) -> tuple[_Part, _Part, _Part]:
    with_mask, with_maps = (
        any(step.get(key) for step in dicts(cfg.train_dataloader))
        for key in ('with_mask', 'with_seg')
    )
    annotations = dict(type='LoadAnnotations', with_bbox=True, with_mask=with_mask)
    resizes = _resizes(size, keep_ratio=True)
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    pack = dict(type='PackDetInputs', meta_keys=keys)
    pack_view = dict(type='PackDetInputs', meta_keys=(*keys, 'flip', 'flip_direction'))
    cfg.tta_pipeline = _views(resizes, annotations, pack_view)

    def dataset(split: str, *steps: _Part, **kwargs: Any) -> _Part:
        return dict(
            type='CocoDataset',
            data_root=root,
            ann_file=_annotations(split),
            data_prefix=dict(img=f'images/{split}/'),
            metainfo=dict(classes=CLASSES, palette=PALETTE),
            # Mirrored digits are no digits: no flips.
            pipeline=[dict(type='LoadImageFromFile'), *steps, pack],
            **kwargs,
        )

    metric = dict(
        type='CocoMetric',
        ann_file=osp.join(root, _annotations('validation')),
        metric=['bbox', 'segm'] if with_mask else 'bbox',
    )
    train = dataset('training', annotations, resizes[1])
    if with_maps:
        train['data_prefix']['seg'] = 'annotations/training/'
        train['pipeline'][1] = dict(annotations, with_seg=True, reduce_zero_label=True)
    # The truth stays at the scenes' own size, at which predictions are judged and drawn.
    val = dataset('validation', resizes[1], annotations, test_mode=True)
    return train, val, metric


def _annotations(split: str) -> str:
    return f'annotations/instances_{split}.json'


def _segmentation_data(cfg: Config, root: str, size: int) -> tuple[_Part, _Part, _Part]:
    # A fixed size, so that scenes can be batched; mmseg evaluates at the map's own size.
    resizes = _resizes(size, keep_ratio=False)

    def dataset(split: str, *steps: _Part) -> _Part:
        return dict(
            type='BaseSegDataset',
            data_root=root,
            data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}'),
            reduce_zero_label=True,
            metainfo=dict(classes=SEMANTIC_CLASSES, palette=[(0, 0, 0), *PALETTE]),
            pipeline=[dict(type='LoadImageFromFile'), *steps, dict(type='PackSegInputs')],
        )

    labels = dict(type='LoadAnnotations', reduce_zero_label=True)
    cfg.model.data_preprocessor.size = (size, size)
    cfg.model.test_cfg = dict(mode='whole')
    cfg.tta_pipeline = _views(resizes, labels, dict(type='PackSegInputs'))
    metric = dict(type='IoUMetric', iou_metrics=['mIoU'])
    train = dataset('training', labels, resizes[1])
    return train, dataset('validation', resizes[1], labels), metric


def _classification_data(cfg: Config, root: str) -> tuple[_Part, _Part, _Part]:
    cfg.data_preprocessor = dict(cfg.get('data_preprocessor') or {}, num_classes=len(CLASSES))

    def dataset(split: str, *steps: _Part) -> _Part:
        return dict(
            type='CustomDataset',
            data_root=root,
            data_prefix=split,
            pipeline=[dict(type='LoadImageFromFile'), *steps, dict(type='PackInputs')],
        )

    # Mirrored digits are no digits: no flips.
    crop = dict(type='RandomResizedCrop', scale=DIGIT_SIDE, crop_ratio_range=(0.6, 1.0))
    for hook in cfg.get('custom_hooks', []):
        if hook.type == 'EMAHook':  # else the average would still be what training started from
            hook.momentum = 0.05
    return dataset('training', crop), dataset('validation'), dict(type='Accuracy', topk=(1, 5))


def _resizes(size: int, keep_ratio: bool) -> list[_Part]:
    """To three quarters of the demo's size, to that size, and to five quarters of it."""
    sides = (size * quarters // 4 for quarters in (3, 4, 5))
    return [dict(type='Resize', scale=(side, side), keep_ratio=keep_ratio) for side in sides]


def _views(resizes: list[_Part], *steps: _Part) -> list[_Part]:
    """The pipeline of ``--tta``: several sizes, none of them mirrored."""
    # Merging asks of every view whether it is mirrored.
    unflipped = dict(type='RandomFlip', prob=0.0)
    transforms = [resizes, [unflipped], *([step] for step in steps)]
    return [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=transforms)]


def _cheaper_proposals(model: ConfigDict) -> None:
    """Fewer proposals: a scene has few objects, and a CPU pays for each region."""
    for part in dicts(model):
        # The sampler of region proposals, not that of anchors, which cost nothing.
        if part.get('add_gt_as_proposals') and part.get('num', 0) > 64:
            part['num'] = 64
        if 'nms_pre' in part and part.get('max_per_img', 0) > 100:
            part['nms_pre'], part['max_per_img'] = min(part['nms_pre'], 300), 100
        # Sparse R-CNN: as many proposals are learnt as boxes are kept.
        if part.get('num_proposals', 0) > 100:
            part['num_proposals'] = model.test_cfg.rcnn.max_per_img = 100


def _set_data(
    cfg: Config,
    train: _Part,
    val: _Part,
    metric: _Part,
    batch_size: int,
    val_batch_size: int,
) -> None:
    loader = dict(num_workers=1, persistent_workers=True)
    cfg.train_dataloader = dict(
        batch_size=batch_size,
        sampler=dict(type='InfiniteSampler', shuffle=True),
        dataset=train,
        **loader,
    )
    cfg.val_dataloader = dict(
        batch_size=val_batch_size,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=val,
        **loader,
    )
    cfg.test_dataloader = cfg.val_dataloader
    cfg.val_evaluator = cfg.test_evaluator = metric


def _set_schedule(
    cfg: Config, max_iters: int, batch_size: int, warmup: int, log_interval: int
) -> None:
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
    cfg.val_cfg, cfg.test_cfg = dict(type='ValLoop'), dict(type='TestLoop')
    cfg.param_scheduler = [
        dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup, end=max_iters, eta_min=0)
    ]
    if warmup:
        rise = dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warmup)
        cfg.param_scheduler.insert(0, rise)
    cfg.auto_scale_lr = dict(enable=False, base_batch_size=batch_size)
    cfg.default_hooks = cfg.get('default_hooks') or {}
    hooks = cfg.default_hooks
    hooks.logger = {'type': 'LoggerHook', **(hooks.get('logger') or {}), 'interval': log_interval}
    hooks.checkpoint = dict(
        type='AtomicCheckpointHook', by_epoch=False, interval=min(200, max_iters), max_keep_ckpts=1
    )
    if hooks.get('visualization'):
        hooks.visualization.interval = 20
    cfg.log_processor = dict(cfg.get('log_processor') or {}, by_epoch=False)
