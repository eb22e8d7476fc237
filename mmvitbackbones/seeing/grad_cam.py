"""Grad-CAM: where a model saw a class (Selvaraju et al., 2017)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..backbones.regionvit import Encoder, split
from ..deploy.model import raw_outputs
from .attention import token_strides


def grad_cam(
    model: Any, image: Tensor, label: int | None, stage: int
) -> tuple[np.ndarray, int, float]:
    """Weigh the channels of a stage's tokens by how much they raise a class's score.

    The tokens are those that enter the stage's last block: what leaves it need not reach the
    scores, as a classifier may read other tokens than the local ones.

    Args:
        model (Any): A classifier, segmenter or detector with a backbone of this package, in
            evaluation mode. The score is a classifier's logit; a segmenter's logits where it finds
            the class, summed (Vinogradova et al., 2020); the best score of a detector's finds.
        image (Tensor): (1, C, H, W), as the model takes it.
        label (int, optional): Number of the class; None: the one that the model is most sure of.
        stage (int): The stage, from 0.

    Returns:
        tuple[np.ndarray, int, float]: The map, (H', W') of the stage's tokens, from 0 to 1; the
        class; its score.

    Raises:
        ValueError: If the model finds nothing of the class, or the stage has no part in it.
    """
    entered: list[Any] = []
    block = model.backbone.stages[stage].blocks[-1]

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        entered.append(inputs)

    handle = block.register_forward_pre_hook(keep)
    try:
        with torch.enable_grad():
            label, score = _score(model, image.detach().requires_grad_(), label)
            tokens = entered[0][0]
            (slope,) = torch.autograd.grad(score, tokens, allow_unused=True)
    finally:
        handle.remove()
    if slope is None:
        raise ValueError(f'the class does not depend on stage {stage + 1}: name another --stage')
    if isinstance(block, Encoder):
        window, stride = entered[0][1], token_strides(model.backbone)[stage]
        size = [-(-side // stride) for side in image.shape[2:]]
        tokens, slope = (split(x, window, size)[0] for x in (tokens, slope))
    importance = slope.mean((1, 2), keepdim=True)
    seen = (importance * tokens).sum(-1)[0].clamp(min=0).detach()
    return (seen / seen.max().clamp(min=1e-12)).cpu().numpy(), label, float(score.detach())


def _score(model: Any, image: Tensor, label: int | None) -> tuple[int, Tensor]:
    if getattr(model, 'roi_head', None) is not None:
        return _score_of_regions(model, image, label)
    if hasattr(model, 'bbox_head'):
        return _score_of_places(model, image, label)
    logits = raw_outputs(model, image)['logits']
    if logits.dim() == 2:
        label = int(logits[0].argmax()) if label is None else label
        return label, logits[0, label]
    found = logits[0].argmax(0)
    label = int(found.flatten().mode().values) if label is None else label
    if not (found == label).any():
        raise ValueError('no pixel is of this class: name another --class')
    return label, logits[0, label][found == label].sum()


def _score_of_places(model: Any, image: Tensor, label: int | None) -> tuple[int, Tensor]:
    """Of a detector without regions: it detaches what it predicts, so of its raw outputs."""
    head = model.bbox_head
    logits = torch.cat(
        [
            each[0].unflatten(0, (-1, head.cls_out_channels)).transpose(0, 1).flatten(1)
            for name, each in raw_outputs(model, image).items()
            if name.startswith('cls_score')
        ],
        dim=1,
    )
    scores = logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(0)[:-1]
    best = scores.amax(1)
    label = int(best.argmax()) if label is None else label
    return label, best[label]


def _score_of_regions(model: Any, image: Tensor, label: int | None) -> tuple[int, Tensor]:
    from mmdet.structures import DetDataSample

    size = tuple(image.shape[2:])
    sample = DetDataSample(
        metainfo=dict(
            img_shape=size,
            ori_shape=size,
            pad_shape=size,
            batch_input_shape=size,
            scale_factor=(1.0, 1.0),
        )
    )
    found = model.predict(image, [sample], rescale=False)[0].pred_instances
    if label is None and len(found.scores):
        label = int(found.labels[found.scores.argmax()])
    scores = found.scores[found.labels == label] if len(found.scores) else found.scores
    if label is None or not len(scores):
        raise ValueError('the detector finds nothing of this class: name another --class')
    return label, scores.max()
