"""Checks of what a run needs, before it starts."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config
from torch import nn

from ..checkpoints.family import where_published
from ..checkpoints.published import tensors_of
from ..checkpoints.reading import is_absent
from ..checkpoints.soundness import check_values
from ..hooks.runner_model import unwrapped
from .data_faults import MAY_NOT, find_faults
from .nodes import dicts
from .processes import say
from .published import backbone_family

_COCO_LAYOUT = """\
  {root}/
    annotations/instances_train2017.json
    annotations/instances_val2017.json
    train2017/*.jpg
    val2017/*.jpg"""
_ADE_LAYOUT = """\
  {root}/
    images/training/*.jpg
    images/validation/*.jpg
    annotations/training/*.png
    annotations/validation/*.png"""
_IMAGENET_LAYOUT = """\
  {root}/
    train/n01440764/*.JPEG
    val/n01440764/*.JPEG
or, with meta/train.txt and meta/val.txt (lines such as 'ILSVRC2012_val_00000001.JPEG 65'),
  {root}/
    train/*.JPEG
    val/*.JPEG"""
_IMAGENET21K_LAYOUT = """\
  {root}/
    train/n00004475/*.JPEG
    val/n00004475/*.JPEG, for tools/test.py alone: what you keep back, of all classes
    meta/train.txt, if there (lines such as 'n00004475/n00004475_6590.JPEG 0')"""
_LAYOUTS = {
    'CocoDataset': ('COCO 2017', _COCO_LAYOUT),
    'ADE20KDataset': ('ADE20K', _ADE_LAYOUT),
    'ImageNet': ('ImageNet-1K', _IMAGENET_LAYOUT),
    'ImageNet21k': ('ImageNet-21K', _IMAGENET21K_LAYOUT),
}
_CLASSES = dict(ImageNet=1000, ImageNet21k=21841)


def check_data(cfg: Config, *loaders: str) -> None:
    """Check that the data sets' files are there, what reads them, and what is in them.

    What the toolbox skips is said; images are not decoded (``tools/check_data.py`` does).

    Args:
        cfg (Config): The config.
        *loaders (str): Which of its data loaders will run, e.g. 'train_dataloader'.

    Raises:
        OSError, ImportError: As :func:`check_data_presence`.
        ValueError: Names the faults that a run would end by, or learn wrongly from, a line each.
    """
    check_data_presence(cfg, *loaders)
    findings = find_faults(cfg, loaders).findings
    refused = [str(finding) for finding in findings if finding.refused]
    if refused:
        advice = 'tools/check_data.py, with the same config and options, looks at every file'
        raise ValueError('\n'.join([*refused, advice]))
    say(*map(str, findings))


def check_data_presence(cfg: Config, *loaders: str) -> None:
    """Check that the data sets' files are there, and what reads them.

    Args:
        cfg (Config): The config.
        *loaders (str): Which of its data loaders will run, e.g. 'train_dataloader'.

    Raises:
        FileNotFoundError: Names what is missing, the expected layout, and what to do.
        PermissionError: Names what may not be read.
        ImportError: If a package that reads them is missing.
    """
    for loader in loaders:
        parts = list(dicts(cfg.get(loader)))
        boosts = any(part.get('type') == 'InstaBoost' for part in parts)
        if boosts and not find_spec('instaboostfast'):
            raise ImportError(
                f'InstaBoost, of {loader}, needs a package: pip install instaboostfast'
            )
        for dataset in parts:
            if 'data_prefix' not in dataset and 'split' not in dataset:
                continue
            missing = [path for path in _paths(dataset) if not _holds_something(path)]
            if missing:
                raise FileNotFoundError(_explain(dataset, missing))
            _check_classes(dataset)


def _check_classes(dataset: Mapping[str, Any]) -> None:
    """Images that no list names must be in folders of classes, one for each.

    Labels are the numbers of the folders: with one missing they would be wrong without a word.
    """
    expected = _CLASSES.get(dataset.get('type', ''))
    if expected is None or any(dataset.get(key) for key in ('ann_file', 'classes', 'metainfo')):
        return
    root, split = dataset.get('data_root') or '', dataset.get('split')
    listed = osp.join(root, 'meta', f'{split}.txt') if split else None
    paths = [] if isinstance(dataset.get('data_prefix'), Mapping) else _paths(dataset)
    if not paths or (listed and osp.isfile(listed)):
        return
    (path,) = paths
    count = sum(entry.is_dir() for entry in os.scandir(path))
    if count != expected:
        layout = _LAYOUTS[dataset['type']][1].format(root=root)
        raise FileNotFoundError(
            f'{path} holds {count} folders of classes instead of {expected}'
            + (f', and there is no {listed}' if listed else '')
            + f'.\nExpected:\n{layout}\nOther classes are told by classes=[...] in the data set.'
        )


def check_weights(cfg: Config) -> None:
    """Check that the weights that a model, or its backbone, starts from are there.

    Args:
        cfg (Config): The config.

    Raises:
        FileNotFoundError: Names the file and what to do.
        ValueError: If a whole classifier is to be loaded by mmengine, which knows no published
            names and goes on with what it finds.
    """
    init = cfg.model.get('init_cfg')
    whole = cfg.model.get('pretrained') or (isinstance(init, Mapping) and init.get('checkpoint'))
    family = backbone_family(cfg.model.backbone)
    if whole and family and cfg.default_scope == 'mmpretrain':
        raise ValueError(
            f'a whole classifier starts from {whole!r} by load_from, not by pretrained or init_cfg '
            'of the model'
        )
    start = cfg.get('load_from')
    if start and is_absent(start):
        where = where_published(start) or 'Train it first'
        raise FileNotFoundError(
            f'there is no checkpoint {start!r}, which load_from names. {where}. Another file is '
            'named by --cfg-options load_from=FILE; load_from=None starts without'
        )
    init = cfg.model.backbone.get('init_cfg')
    path = init.get('checkpoint', '') if isinstance(init, Mapping) else ''
    if path and is_absent(path):
        where = where_published(path)
        if not where and family:
            where = f'Nobody publishes a file of that name (published ones: {family.source.page})'
        raise FileNotFoundError(
            f'there is no checkpoint {path!r}, which model.backbone.init_cfg names. '
            f'{f"{where}. " if where else ""}Another file is named by '
            '--cfg-options model.backbone.init_cfg.checkpoint=FILE; model.backbone.init_cfg=None '
            'starts from scratch'
        )


def check_fit(model: nn.Module, checkpoint: Mapping[str, Any], path: str) -> None:
    """Check that a checkpoint fills a model, all of it and nothing else.

    Args:
        model (nn.Module): The model.
        checkpoint (Mapping[str, Any]): What the file holds.
        path (str): The file, for the message.

    Raises:
        ValueError: Names tensors that are missing, unexpected, of another shape or no weights.
    """
    ours, theirs = unwrapped(model).state_dict(), tensors_of(checkpoint, path)
    problems = {
        'missing': [name for name in ours if name not in theirs],
        'unexpected': [name for name in theirs if name not in ours],
        'of another shape': [
            f'{name} {tuple(t.shape)} instead of {tuple(ours[name].shape)}'
            for name, t in theirs.items()
            if name in ours and ours[name].shape != t.shape
        ],
    }
    if any(problems.values()):
        details = '; '.join(
            f'{len(names)} tensors {problem} ({", ".join(names[:3])}'
            f'{", ..." if len(names) > 3 else ""})'
            for problem, names in problems.items()
            if names
        )
        raise ValueError(
            f'{path} does not fit the config: {details}. Give the config, and the options, it was '
            'trained with; weights published for ImageNet go into model.backbone.init_cfg'
        )
    check_values(theirs, ours, path)


def check_classes(
    cfg: Config, checkpoint: Mapping[str, Any], path: str, loader: str = 'test_dataloader'
) -> None:
    """Check that a checkpoint of ours was trained for the classes of the data that it meets.

    Args:
        cfg (Config): The config.
        checkpoint (Mapping[str, Any]): What the file holds; others' do not say their classes.
        path (str): The file, for the message.
        loader (str): Of which data.

    Raises:
        ValueError: If the classes differ, in their order for example.
    """
    trained = classes_of(checkpoint)
    tested = (cfg[loader].dataset.get('metainfo') or {}).get('classes')
    if trained and tested and list(trained) != list(tested):
        raise ValueError(
            f'{path} was trained for the classes {", ".join(trained)}, the data set has '
            f'{", ".join(tested)}: their names and order must agree'
        )


def classes_of(checkpoint: Mapping[str, Any]) -> Sequence[str] | None:
    """The classes that a checkpoint of ours was trained for; None for others'."""
    meta = checkpoint.get('meta')
    return ((meta or {}).get('dataset_meta') or {}).get('classes')


def check_schedule(cfg: Config, checkpoint: Mapping[str, Any], path: str) -> None:
    """Check that a training that goes on has the length it began with.

    mmengine restores the schedule from the checkpoint: with another one nothing would be learnt.

    Args:
        cfg (Config): The config; its schedulers count steps.
        checkpoint (Mapping[str, Any]): What the file holds.
        path (str): The file, for the message.

    Raises:
        ValueError: If the length differs.
    """
    before = [each['end'] for each in checkpoint.get('param_schedulers') or [] if 'end' in each]
    now = [each['end'] for each in cfg.get('param_scheduler') or [] if 'end' in each]
    if before and now and max(before) != max(now):
        raise ValueError(
            f'{path} is of a training of {max(before)} steps, this one has {max(now)}: resume with '
            'the same data, --epochs and --batch-size; to train for longer, start anew with '
            '--cfg-options load_from=FILE'
        )


def check_overlap(model: nn.Module, checkpoint: Mapping[str, Any], path: str) -> None:
    """Check that a checkpoint to start from (``load_from``) is one of such a model.

    Heads may differ, for another number of classes, say; mmengine names in the log what does.

    Args:
        model (nn.Module): The model.
        checkpoint (Mapping[str, Any]): What the file holds.
        path (str): The file, for the message.

    Raises:
        ValueError: If a tensor of the model's backbone is missing or of another shape, or one of
            the model's no weights.
    """
    theirs = tensors_of(checkpoint, path)
    backbone = model.get_submodule('backbone')
    for name, tensor in backbone.state_dict(prefix='backbone.').items():
        if name not in theirs or theirs[name].shape != tensor.shape:
            raise ValueError(
                f'load_from={path} is no checkpoint of such a model: {name} '
                f'{tuple(tensor.shape)} is missing or of another shape. Weights published for '
                'ImageNet go into model.backbone.init_cfg'
            )
    check_values(theirs, model.state_dict(), path)


def _paths(dataset: Mapping[str, Any]) -> list[str]:
    """The files and folders a data set reads."""
    root = dataset.get('data_root') or ''
    prefix = dataset.get('data_prefix') or dataset.get('split')  # mmpretrain's may be a word
    prefixes = prefix.values() if isinstance(prefix, Mapping) else [prefix]
    parts = [dataset.get('ann_file') or '', *prefixes]
    return [osp.join(root, part) for part in parts if part]


def _holds_something(path: str) -> bool:
    """Whether there is such a file, or such a folder that is not empty.

    Raises:
        PermissionError: If that may not be seen, which is something else than "not there".
    """
    try:
        os.stat(path)
        return bool(os.listdir(path)) if osp.isdir(path) else True
    except PermissionError as error:
        raise PermissionError(f'{error.filename} may not be read: {MAY_NOT}') from None
    except (FileNotFoundError, NotADirectoryError):
        return False


def _explain(dataset: Mapping[str, Any], missing: list[str]) -> str:
    root = (dataset.get('data_root') or '.').rstrip('/')
    prefix = dataset.get('data_prefix')
    maps = prefix.get('seg') if isinstance(prefix, Mapping) else None
    lines = []
    if maps and missing == [osp.join(dataset.get('data_root') or '', maps)]:
        lines.append(f"COCO-stuff's maps are not there. Missing or empty: {missing[0]}.")
    else:
        name, layout = _LAYOUTS.get(dataset['type'], (f'the data of {dataset["type"]}', ''))
        lines.append(f'{name} is not there. Missing or empty: {", ".join(missing)}.')
        if layout:
            lines += ['Expected:', layout.format(root=root)]
    if maps:
        lines.append(
            f'{osp.join(root, maps, "*.png")}: the pixel maps of COCO-stuff, one for each image '
            '(stuffthingmaps_trainval2017.zip of github.com/nightrome/cocostuff). HTC trains '
            'without them, and without its semantic branch, by '
            '--cfg-options model.roi_head.semantic_head=None.'
        )
    lines.append(
        'Put or link it there, name its folder with --data-root, or give --demo: that runs any '
        'config on a small data set of real handwritten digits and needs no download.'
    )
    return '\n'.join(lines)
