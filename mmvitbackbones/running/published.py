"""Configs with the settings that published detectors were trained with."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor

from ..checkpoints import detectron2
from ..checkpoints.family import family_of
from ..checkpoints.published import tensors_of
from ..checkpoints.reading import read_checkpoint
from ..checkpoints.regionvit import FAMILY
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
) -> Config:
    """Give a config the settings that a published detector was trained with.

    RegionViT's detectors need some that our configs, for training, do not have: each is named in
    the log, and in the config's ``published_settings``. Other files need none.

    Args:
        cfg (Config): A config of the same backbone and head.
        path_or_state_dict (str | os.PathLike[str] | Mapping[str, Any]): The detector's file, a
            URL, or what such a file holds.
        source (str): What messages call the latter, such as the file that it was read from.

    Returns:
        Config: The config to build the model, and its data, from. Weights are then loaded by
        :func:`mmvitbackbones.load_published`.

    Raises:
        ValueError: If the config is of another variant or head.
        FileNotFoundError: If there is no such file.
        UnreadableCheckpointError: If the file is damaged or holds more than plain data.
    """
    if isinstance(path_or_state_dict, Mapping):
        checkpoint = path_or_state_dict
    else:
        source, checkpoint = str(path_or_state_dict), read_checkpoint(path_or_state_dict)
    state = tensors_of(checkpoint)
    cfg = copy.deepcopy(cfg)
    if not detectron2.recognise(state):
        return cfg
    state = detectron2.convert(state)
    _check_model(cfg.model, state, source)
    done = [said for change in _CHANGES if (said := change(cfg))]
    first = f'{source} is a published RegionViT detector, and was trained with these settings:'
    print_log('\n  '.join([first, *done]), logger='current')
    cfg.published_settings = done  # a Runner writes the config into its log
    return cfg


def _check_model(model: ConfigDict, state: Mapping[str, Tensor], source: str) -> None:
    """Compare a model's config with a detector's tensors.

    Raises:
        ValueError: Names the configs that fit.
    """
    head = 'retinanet' if 'bbox_head.retina_cls.weight' in state else 'maskrcnn'
    stem = state['backbone.cls_token.proj.weight']
    depths = {name.split('.')[4] for name in state if name.startswith('backbone.layers.2.block.')}
    peg = any('.peg.' in name for name in state)
    found = (stem.shape[0], len(depths) - 1, stem.shape[-1] // 4, peg)
    variant = _VARIANTS.get(found)
    if variant is None:
        return  # not one of those that are published; loading says whether it fits
    fitting = f'configs/{head}_regionvit_{variant}_1x.py'
    backbone = MODELS.get(model.backbone.type) if isinstance(model.backbone.type, str) else None
    ours = _outline(model.backbone) if family_of(backbone) is FAMILY else None
    if ours != (*found[:2], peg):
        raise ValueError(
            f'{source} holds another variant of RegionViT than the config: use {fitting}'
        )
    kind = dict(retinanet='RetinaNet', maskrcnn='MaskRCNN')[head]
    if model.type.rpartition('.')[2] != kind:
        raise ValueError(f'{source} is a {kind}, the config a {model.type}: use {fitting}')


def _outline(backbone: ConfigDict) -> tuple[int, int, bool]:
    """First channels, depth of the third stage, and PEG of a config's RegionViT."""
    from ..backbones.options import resolve_arch
    from ..backbones.regionvit import ARCHS

    arch = resolve_arch(
        backbone.get('arch', 'small'),
        ARCHS,
        per_stage=('dims', 'heads', 'depths'),
        optional=dict(regional=True),
    )
    return arch['dims'][0], arch['depths'][2], bool(backbone.get('peg', False))


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
    if cfg.model.type.rpartition('.')[2] != 'RetinaNet':
        return ''
    cfg.model.bbox_head.anchor_generator.scale_major = False
    return 'anchors of a place in the order of sizes, then ratios'


def _resizing(cfg: Config) -> str:
    for step in dicts(list(cfg.values())):
        if str(step.get('type')).rpartition('.')[2] in _RESIZES:
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
