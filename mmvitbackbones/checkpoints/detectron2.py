"""Whole detectors as detectron2 names them: those that RegionViT's authors publish."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .conversion import rename

_BACKBONE = 'backbone.bottom_up.model.'
_LEVEL = re.compile(r'^backbone\.fpn_lateral(\d)\.')
# What follows from the config: statistics of the pixels, and anchors.
NO_WEIGHT = re.compile(r'^pixel_(mean|std)$|\bcell_anchors\.\d+$')


def recognise(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of such a detector."""
    return any(name.startswith(_BACKBONE) for name in state)


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors the names of mmdetection, the backbone's those of the published classifier.

    Args:
        state (Mapping[str, Tensor]): By detectron2's names.

    Returns:
        dict[str, Tensor]: By ``backbone.`` and the published name, or by mmdetection's. The
        channels of RetinaNet's heads stay in detectron2's order of the anchors: a place has all
        ratios of its first size first (``scale_major=False``).
    """
    levels = [int(found[1]) for found in map(_LEVEL.match, state) if found]
    first, count = min(levels, default=2), len(set(levels))
    rules = (
        ('^' + re.escape(_BACKBONE), 'backbone.'),
        (_LEVEL.pattern, lambda m: f'neck.lateral_convs.{int(m[1]) - first}.conv.'),
        (r'^backbone\.fpn_output(\d)\.', lambda m: f'neck.fpn_convs.{int(m[1]) - first}.conv.'),
        # Two levels beyond those of the backbone.
        (
            r'^backbone\.top_block\.p([67])\.',
            lambda m: f'neck.fpn_convs.{count + int(m[1]) - 6}.conv.',
        ),
        (r'^proposal_generator\.rpn_head\.conv\.', 'rpn_head.rpn_conv.'),
        (r'^proposal_generator\.rpn_head\.objectness_logits\.', 'rpn_head.rpn_cls.'),
        (r'^proposal_generator\.rpn_head\.anchor_deltas\.', 'rpn_head.rpn_reg.'),
        (
            r'^roi_heads\.box_head\.fc(\d)\.',
            lambda m: f'roi_head.bbox_head.shared_fcs.{int(m[1]) - 1}.',
        ),
        (r'^roi_heads\.box_predictor\.cls_score\.', 'roi_head.bbox_head.fc_cls.'),
        (r'^roi_heads\.box_predictor\.bbox_pred\.', 'roi_head.bbox_head.fc_reg.'),
        (
            r'^roi_heads\.mask_head\.mask_fcn(\d)\.',
            lambda m: f'roi_head.mask_head.convs.{int(m[1]) - 1}.conv.',
        ),
        (r'^roi_heads\.mask_head\.deconv\.', 'roi_head.mask_head.upsample.'),
        (r'^roi_heads\.mask_head\.predictor\.', 'roi_head.mask_head.conv_logits.'),
        # A ReLU follows each convolution there.
        (
            r'^head\.cls_subnet\.(\d)\.',
            lambda m: f'bbox_head.cls_convs.{int(m[1]) // 2}.conv.',
        ),
        (
            r'^head\.bbox_subnet\.(\d)\.',
            lambda m: f'bbox_head.reg_convs.{int(m[1]) // 2}.conv.',
        ),
        (r'^head\.cls_score\.', 'bbox_head.retina_cls.'),
        (r'^head\.bbox_pred\.', 'bbox_head.retina_reg.'),
    )
    return {
        rename(name, rules): tensor for name, tensor in state.items() if not NO_WEIGHT.search(name)
    }
