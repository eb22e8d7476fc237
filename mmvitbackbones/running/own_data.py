"""Any config on a user's own data set."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from ..checkpoints.family import published_by, where_published
from ..checkpoints.reading import is_absent
from ..datasets.checking.images import IMAGE_SUFFIXES
from ..datasets.own_data import OwnData, Split, read_own_data
from ..datasets.own_data.common import make_palette
from ..zoo import read_zoo
from ..zoo.configs import config_folder, config_names
from .config import leave_out_unused_maps
from .download import FOLDER
from .image_size import fit_crops, set_image_size
from .nodes import dicts, set_num_classes
from .processes import say
from .schedule import fit_schedule

_Part = dict[str, Any]  # a part of a config
_TASKS = dict(mmdet='detection', mmseg='segmentation', mmpretrain='classification')
_INSTEAD = dict(
    detection='maskrcnn_regionvit_s_1x or, for boxes without masks, retinanet_regionvit_s_1x',
    segmentation='semfpn_regionvit_s_80k',
    classification='cls_regionvit_s_in1k',
)
_OF_SCHEDULE = ('train_cfg', 'param_scheduler')
_RATE = 'optim_wrapper.optimizer.lr'
# How many processes a launcher says it starts.
_PROCESSES = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')


def use_own_data(
    cfg: Config,
    args: argparse.Namespace,
    cfg_options: Mapping[str, Any],
    classes: Sequence[str] | None = None,
) -> Config:
    """Give a config a user's data set, and all that follows from it.

    Classes, files, evaluators and the schedule; each is said.

    Args:
        cfg (Config): The config, which stays as it is.
        args (argparse.Namespace): The options ``data``, ``image_size``, ``batch_size``,
            ``workers``, ``launcher``; for training ``epochs``.
        cfg_options (Mapping[str, Any]): What was set by hand, which goes before.
        classes (Sequence[str], optional): Those that a detector knows; the data set may have some
            of them only, in another order.

    Returns:
        Config: The config to run.

    Raises:
        FileNotFoundError: If parts of the data set are missing.
        ValueError: If its files are wrong, or it does not fit the config.
    """
    cfg = copy.deepcopy(cfg)
    training = 'epochs' in args
    # A test leaves alone what the training reads.
    work_dir = cfg.work_dir if training else f'{cfg.work_dir}/test'
    data = read_own_data(args.data, work_dir, training)
    if classes and data.task == 'detection' and set(data.classes) <= set(classes):
        data = dataclasses.replace(data, classes=tuple(classes), palette=make_palette(len(classes)))
    name = Path(cfg.filename).stem
    _check_task(cfg, data, name)
    _check_options(cfg, name, cfg_options)
    set_num_classes(cfg.model, len(data.classes))
    said = [_in_words(data)]
    said += dict(detection=_detection, segmentation=_segmentation, classification=_classification)[
        data.task
    ](cfg, data)
    if args.image_size:
        said.append(set_image_size(cfg, args.image_size))
    elif data.task == 'segmentation':
        said += fit_crops(cfg, data.splits.get('train', _val(data)).short_side)
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg[key]
        if args.workers is not None:
            loader.update(num_workers=args.workers, persistent_workers=args.workers > 0)
        # Images of others differ in size; the schedule sets the training's.
        if args.batch_size and data.task == 'classification':
            loader.batch_size = args.batch_size
    if training:
        processes = int(os.environ.get(_PROCESSES.get(args.launcher, ''), 1))
        train = data.splits['train']
        if train.empty:
            said.append(f'{train.empty} images have no objects: left out of the training')
        count = train.count - train.empty
        own_rate = _RATE in cfg_options
        said += fit_schedule(cfg, count, args.batch_size, args.epochs, processes, own_rate)
    cfg.merge_from_dict(dict(cfg_options))
    say('\n  '.join(said))
    return cfg


def _in_words(data: OwnData) -> str:
    counts = ', '.join(f'{split.count} to {name}' for name, split in data.splits.items())
    classes = ', '.join(data.classes[:5]) + (', ...' if len(data.classes) > 5 else '')
    return f'{data.folder}: {data.layout}; images: {counts}; {len(data.classes)} classes: {classes}'


def _check_task(cfg: Config, data: OwnData, name: str) -> None:
    """Compare the kind of data with the kind of model.

    Raises:
        ValueError: Names a config that fits.
    """
    task = _TASKS.get(cfg.get('default_scope'))
    if task != data.task:
        raise ValueError(
            f'{data.folder} is a data set for {data.task} ({data.layout}), {name} a config for '
            f'{task}: take one for {data.task}, such as {_INSTEAD[data.task]}'
        )
    if task == 'detection' and _wants_masks(cfg) and not data.masks:
        raise ValueError(
            f'{data.folder} has boxes without masks, which {name} needs: take a config for boxes '
            f'alone, such as configs/{_for_boxes(name)}.py'
        )


def _check_options(cfg: Config, name: str, cfg_options: Mapping[str, Any]) -> None:
    """Check what the schedule would contradict, and that there is something to evaluate.

    Raises:
        ValueError: If options set the schedule; or if the config evaluates nothing.
    """
    for option in cfg_options:
        if option != 'train_cfg.val_interval' and option.split('.')[0] in _OF_SCHEDULE:
            raise ValueError(f'--data makes the schedule: give --epochs instead of {option}')
    if not all(cfg.get(f'{split}_dataloader') for split in ('train', 'val', 'test')):
        raise ValueError(f'{name} evaluates nothing: --data takes another config of its size')


def _wants_masks(cfg: Config) -> bool:
    return any(step.get('with_mask') for step in dicts(cfg.train_dataloader))


def _for_boxes(name: str) -> str:
    """A config for boxes with the same backbone."""
    names = config_names(config_folder())
    same = re.sub(r'^(cascade_maskrcnn|maskrcnn|htc)_', 'retinanet_', name)
    shorter = re.sub(r'_[23]x$', '_1x', same)
    return next((each for each in (same, shorter) if each in names), 'retinanet_regionvit_s_1x')


def _detection(cfg: Config, data: OwnData) -> list[str]:
    said = []
    if (cfg.model.get('roi_head') or {}).get('semantic_head'):
        cfg.model.roi_head.semantic_head = None
        leave_out_unused_maps(cfg)
        said.append('no semantic branch, which would need semantic maps')
    meta = dict(classes=data.classes, palette=data.palette)
    for key, split in _loaders(data).items():
        dataset = _only_dataset(cfg[key])
        dataset.update(
            type='CocoDataset',
            data_root='',
            ann_file=str(split.annotations),
            data_prefix=dict(img=f'{split.images}/'),
            metainfo=meta,
        )
        if dataset.get('filter_cfg'):
            dataset.filter_cfg.min_size = 1  # COCO's 32 would leave small pictures out
        cfg[key].dataset = dataset
    for key, split in (('val_evaluator', _val(data)), ('test_evaluator', _test(data))):
        cfg[key] = copy.deepcopy(cfg[key])
        for metric in dicts(cfg[key]):
            if metric.get('ann_file'):
                metric['ann_file'] = str(split.annotations)
    return said


def _segmentation(cfg: Config, data: OwnData) -> list[str]:
    for step in dicts(list(cfg.values())):
        if 'reduce_zero_label' in step:
            step['reduce_zero_label'] = False
    for key, split in _loaders(data).items():
        cfg[key].dataset = dict(
            type='BaseSegDataset',
            data_prefix=dict(img_path=str(split.images), seg_map_path=str(split.annotations)),
            img_suffix=_only_suffix(split),
            seg_map_suffix='.png',
            reduce_zero_label=False,
            metainfo=dict(classes=data.classes, palette=data.palette),
            pipeline=_only_dataset(cfg[key]).pipeline,
        )
    return []


def _only_suffix(split: Split) -> str:
    """The suffix of a split's images, of which mmsegmentation takes one.

    Raises:
        ValueError: If there are several.
    """
    suffixes = sorted(
        {path.suffix for path in split.images.rglob('*') if path.suffix.lower() in IMAGE_SUFFIXES}
    )
    if len(suffixes) != 1:
        raise ValueError(
            f'{split.images} has images ending in {", ".join(suffixes)}: mmsegmentation takes one '
            'kind in a folder, so convert them to one'
        )
    return suffixes[0]


def _classification(cfg: Config, data: OwnData) -> list[str]:
    count = len(data.classes)
    cfg.data_preprocessor = dict(cfg.get('data_preprocessor') or {}, num_classes=count)
    for key, split in _loaders(data).items():
        cfg[key].dataset = dict(
            type='CustomDataset',
            data_prefix=str(split.images),
            metainfo=dict(classes=data.classes),
            pipeline=_only_dataset(cfg[key]).pipeline,
        )
    sampler = cfg.train_dataloader.sampler
    if sampler.type == 'RepeatAugSampler':
        sampler.selected_round = 0  # else it takes whole 256s of images: of fewer, none
    for key in ('val_evaluator', 'test_evaluator'):
        for metric in dicts(cfg[key]):
            if metric.get('topk'):
                metric['topk'] = (1, 5) if count > 5 else (1,)
    return []


def _loaders(data: OwnData) -> dict[str, Split]:
    """What each loader reads."""
    loaders = dict(val_dataloader=_val(data), test_dataloader=_test(data))
    if 'train' in data.splits:
        loaders['train_dataloader'] = data.splits['train']
    return loaders


def _val(data: OwnData) -> Split:
    return data.splits['val']


def _test(data: OwnData) -> Split:
    return data.splits.get('test', data.splits['val'])


def _only_dataset(loader: ConfigDict) -> ConfigDict:
    """A loader's data set, without what repeats it.

    Raises:
        ValueError: If there are several.
    """
    found = [part for part in dicts(loader.dataset) if part.get('pipeline') is not None]
    if len(found) != 1:
        raise ValueError(
            f'--data needs a config with one data set for each loader, got {len(found)} of them'
        )
    return copy.deepcopy(ConfigDict(found[0]))


def choose_start(cfg: Config, cfg_options: Mapping[str, Any]) -> str:
    """Start from the best weights that are there; say which, and how to get better ones.

    Args:
        cfg (Config): The config of a training that is not resumed, changed in place.
        cfg_options (Mapping[str, Any]): What was set by hand, which goes before.

    Returns:
        str: What was chosen.
    """
    name = Path(cfg.filename).stem
    by_hand = [
        key for key in cfg_options if key == 'load_from' or key.startswith('model.backbone.init')
    ]
    if 'load_from' in by_hand:
        cfg.model.backbone.init_cfg = None  # the file has all weights
    if by_hand:
        return f'start: as {" and ".join(by_hand)} says'
    row = read_zoo().rows.get(name)
    trained = FOLDER / row.trained if row and row.trained else None
    if trained and trained.is_file():
        cfg.load_from, cfg.model.backbone.init_cfg = str(trained), None
        return f'start: {trained}, which is published for {name}; heads for other classes start new'
    if cfg.get('load_from') and is_absent(cfg.load_from):
        cfg.load_from = None
    init = cfg.model.backbone.get('init_cfg')
    file = init.get('checkpoint', '') if isinstance(init, dict) else ''
    better = trained or (Path(file) if file else None)
    source = published_by(better) if better else None
    advice = ''
    if better and source and source.access == 'open':
        advice = f'. Better: tools/download.py {better.name}, then the same command'
    elif better and source:
        advice = f'. Better, if you have it: {where_published(better)}, as {better}'
    if file and not is_absent(file):
        return f'start: the backbone from {file}{advice if better != Path(file) else ""}'
    cfg.model.backbone.init_cfg = None
    return f'start: from scratch{advice}'
