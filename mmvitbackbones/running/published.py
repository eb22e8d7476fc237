"""Configs with the settings that published detectors were trained with."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor

from ..checkpoints import detectron2
from ..checkpoints.family import Family, family_of
from ..checkpoints.published import tensors_of
from ..checkpoints.reading import read_checkpoint
from ..checkpoints.regionvit import FAMILY
from ..zoo import read_zoo
from .nodes import dicts

# First channels, depth of the third stage, window and PEG: what configs call it.
_VARIANTS = {
    (96, 8, 7, False): 's',
    (96, 8, 14, False): 's_plus',
    (96, 8, 14, True): 's_plus_peg',
    (128, 14, 7, False): 'b',
    (128, 14, 14, False): 'b_plus',
    (128, 14, 14, True): 'b_plus_peg',
}
_RESIZES = ('Resize', 'RandomResize', 'RandomChoiceResize')
_MEAN, _STD = [103.53, 116.28, 123.675], [57.375, 57.12, 58.395]


def as_published(
    cfg: Config,
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, Any],
    source: str = 'a state dict',
    new_heads: bool = False,
) -> Config:
    """Give a config the settings that a published detector was trained with.

    RegionViT's detectors need some that our configs, for training, do not have: each is named in
    the log, and in the config's ``published_settings``. So do our own checkpoints that were
    trained further from them. Other files need none.

    Args:
        cfg (Config): A config of the same backbone and head.
        path_or_state_dict (str | os.PathLike[str] | Mapping[str, Any]): The detector's file, a
            URL, or what such a file holds.
        source (str): What messages call the latter, such as the file that it was read from.
        new_heads (bool): Whether the config may have another number of classes, for training, so
            that its heads start new.

    Returns:
        Config: The config to build the model, and its data, from. Weights are then loaded by
        :func:`mmvitbackbones.load_published`.

    Raises:
        ValueError: If the config is of another variant or head, or for other classes.
        FileNotFoundError: If there is no such file.
        UnreadableCheckpointError: If the file is damaged or holds more than plain data.
    """
    if isinstance(path_or_state_dict, Mapping):
        checkpoint = path_or_state_dict
    else:
        source, checkpoint = str(path_or_state_dict), read_checkpoint(path_or_state_dict)
    state = tensors_of(checkpoint)
    cfg = copy.deepcopy(cfg)
    if detectron2.recognise(state):
        _check_model(cfg, detectron2.convert(state), source, new_heads)
        first = f'{source} is a published RegionViT detector, and was trained with these settings:'
    elif _trained_further(checkpoint) and 'published_settings' not in cfg:
        first = f'{source} was trained further from a published detector, with its settings:'
    else:
        return cfg
    done = [said for change in _CHANGES if (said := change(cfg))]
    print_log('\n  '.join([first, *done]), logger='current')
    cfg.published_settings = done  # a Runner writes the config into its log
    return cfg


def _trained_further(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint of ours was trained by a config that this module made."""
    meta = checkpoint.get('meta')
    text = meta.get('cfg') if isinstance(meta, Mapping) else None
    return isinstance(text, str) and re.search(r'^published_settings\s*=', text, re.M) is not None


def _check_model(cfg: Config, state: Mapping[str, Tensor], source: str, new_heads: bool) -> None:
    """Compare a config's model with a detector's tensors.

    Raises:
        ValueError: Names the config that fits.
    """
    model = cfg.model
    head = 'retinanet' if 'bbox_head.retina_cls.weight' in state else 'maskrcnn'
    stem = state.get('backbone.cls_token.proj.weight')
    depths = {name.split('.')[4] for name in state if name.startswith('backbone.layers.2.block.')}
    peg = any('.peg.' in name for name in state)
    found = stem is not None and (stem.shape[0], len(depths) - 1, stem.shape[-1] // 4, peg)
    variant = _VARIANTS.get(found) if found else None
    if variant is None:
        return  # not one of those that are published; loading says whether it fits
    row = _row_of(source)
    fitting = f'configs/{row or f"{head}_regionvit_{variant}_1x"}.py'
    if backbone_family(model.backbone) is not FAMILY or _outline(model.backbone) != found:
        raise ValueError(
            f'{source} holds another variant of RegionViT than the config: use {fitting}'
        )
    kind, ours = dict(retinanet='RetinaNet', maskrcnn='MaskRCNN')[head], name_of(model.type)
    if ours != kind:
        raise ValueError(f'{source} is a {kind}, the config a {ours}: use {fitting}')
    boxes = model.bbox_head if head == 'retinanet' else model.roi_head.bbox_head
    classes = _num_classes(state)
    if boxes.num_classes != classes and not new_heads:
        raise ValueError(
            f'{source} is for {classes} classes, the config, as it would run, for '
            f'{boxes.num_classes}: {fitting} fits as it is; as_published(new_heads=True) is for '
            'training on other classes'
        )
    if row and row != Path(str(cfg.filename)).stem:
        print_log(f'{source} was trained as {fitting}; schedule and sizes here may be others')


def _num_classes(state: Mapping[str, Tensor]) -> int:
    """For how many classes a published detector's box head is."""
    if 'bbox_head.retina_cls.weight' in state:
        anchors = len(state['bbox_head.retina_reg.weight']) // 4
        return len(state['bbox_head.retina_cls.weight']) // anchors
    return len(state['roi_head.bbox_head.fc_cls.weight']) - 1  # the last is the background


def name_of(kind: str | type) -> str:
    """The name of a type that a config gives by name, with or without scope, or as a class."""
    return kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__


def backbone_family(backbone: Mapping[str, Any]) -> Family | None:
    """The family of a config's backbone; None for those of other packages."""
    kind = backbone['type']
    return family_of(MODELS.get(kind) if isinstance(kind, str) else kind)


def _row_of(source: str) -> str | None:
    """The config of the model zoo that a file of this name is of."""
    name = os.path.basename(source)
    return next((row for row, entry in read_zoo().rows.items() if entry.trained == name), None)


def _outline(backbone: ConfigDict) -> tuple[int, int, int, bool] | None:
    """First channels, depth of the third stage, window and PEG of a config's RegionViT."""
    from ..backbones.options import for_each_stage, resolve_arch
    from ..backbones.regionvit import ARCHS

    arch = resolve_arch(
        backbone.get('arch', 'small'),
        ARCHS,
        per_stage=('dims', 'heads', 'depths'),
        optional=dict(regional=True),
    )
    if not arch['regional']:
        return None
    window = backbone.get('window_size') or arch['window_size']
    first_window = for_each_stage(window, len(arch['dims']))[0]
    return arch['dims'][0], arch['depths'][2], first_window, bool(backbone.get('peg', False))


def _colours(cfg: Config) -> str:
    cfg.model.data_preprocessor.update(mean=_MEAN, std=_STD, bgr_to_rgb=True)
    return f'images in RGB, but their mean {_MEAN} and deviation {_STD} in BGR order'


def _padding(cfg: Config) -> str:
    cfg.model.backbone.regional_padding = 'published'
    return "regional_padding='published' in the backbone"


def _start(cfg: Config) -> str:
    cfg.model.backbone.init_cfg = None
    return ''  # the file has all weights


def _extra_levels(cfg: Config) -> str:
    neck = cfg.model.neck
    if not neck.get('add_extra_convs'):
        return ''
    neck.update(add_extra_convs='on_input', relu_before_extra_convs=True)
    return 'a ReLU before the last level of the pyramid'


def _anchors(cfg: Config) -> str:
    if name_of(cfg.model.type) != 'RetinaNet':
        return ''
    cfg.model.bbox_head.anchor_generator.scale_major = False
    return 'anchors of a place in the order of sizes, then ratios'


def _resizing(cfg: Config) -> str:
    for step in dicts(list(cfg.values())):
        if 'type' in step and name_of(step['type']) in _RESIZES:
            step['backend'] = 'pillow'
    return "Pillow's bilinear resizing, which smooths"


_CHANGES: tuple[Callable[[Config], str], ...] = (
    _colours,
    _padding,
    _start,
    _extra_levels,
    _anchors,
    _resizing,
)
