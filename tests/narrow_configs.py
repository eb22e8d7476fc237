"""Our configs with so few channels that a test can run them."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from mmvitbackbones.running import load_config
from mmvitbackbones.running.nodes import dicts
from mmvitbackbones.zoo import get_config

CONFIGS = Path(__file__).parents[1] / 'configs'
DIMS = [16, 16, 32, 32]
ARCH = dict(dims=DIMS, heads=[1, 1, 2, 2], depths=[1, 1, 1, 1])
ARCHES = dict(
    RegionViT=dict(ARCH, stem='3-conv', window_size=7),
    FocalTransformer=ARCH,
    RMT=dict(ARCH, mlp_ratios=[2, 2, 2, 2], decay_range=[(2, 6)] * 4),
    VisionLongformer=ARCH,
)
FEWER = {256: 32, 512: 32, 1024: 32, 2048: 64}  # not below the 32 groups of ATSS's norms


def narrow_config(name: str, options: dict | None = None, **kwargs) -> Config:
    """Load a config as the tools do and narrow it.

    Args:
        name (str): The config.
        options (dict, optional): As of ``--cfg-options``.
        **kwargs: More arguments of ``load_config``.

    Returns:
        Config: Backbone, neck and heads are narrow, nothing else differs.
    """
    cfg = load_config(str(CONFIGS / f'{name}.py'), options, **kwargs)
    backbone = cfg.model.backbone
    backbone.update(init_cfg=None, arch=ARCHES[backbone.type])
    for part in dicts([value for key, value in cfg.model.items() if key != 'backbone']):
        for key, value in part.items():
            if 'channel' in key:
                part[key] = _fewer(value)
    takes = cfg.model.get('neck') or cfg.model.decode_head
    takes = takes[0] if isinstance(takes, list) else takes
    if cfg.default_scope == 'mmpretrain':
        takes.in_channels = DIMS[-1]
    else:
        takes.in_channels = [DIMS[i] for i in backbone.get('out_indices', range(4))]
    if cfg.model.get('auxiliary_head'):
        cfg.model.auxiliary_head.in_channels = DIMS[cfg.model.auxiliary_head.in_index]
    return cfg


def narrow_own_config(name: str) -> Config:
    """Narrow a config for a data set of one's own, whose classes a classifier's head then gets.

    Args:
        name (str): The config.

    Returns:
        Config: Narrow as :func:`narrow_config`; of a classifier, only the backbone.
    """
    if not name.startswith('cls_'):
        return narrow_config(name)
    cfg = get_config(name)
    cfg.model.backbone.arch = ARCHES[cfg.model.backbone.type]
    cfg.model.neck.in_channels = DIMS[-1]
    return cfg


def _fewer(channels: int | list) -> int | list:
    if isinstance(channels, list):
        return [_fewer(count) for count in channels]
    return FEWER.get(channels, channels)
