"""Two-stage detectors that learn the classes before they learn to find boxes."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from .runner_model import model_of


@HOOKS.register_module()
class ClassesFirstHook(Hook):
    """Begins the training of a two-stage detector with the classes of the true boxes alone.

    Trained from scratch on little data, a box head meets regions that show an object cut off, or
    hardly at all, before it can tell any two objects apart, and learns nothing for a long time.
    With this hook it first classifies the true boxes, which are moved and scaled more and more.
    These iterations are cheap: they need no proposals and no masks.

    With several processes the model's wrapper needs ``find_unused_parameters=True``, as the other
    heads get no gradients at first.

    Args:
        fraction (float): How much of the training this takes, above 0 and below 1.
        jitter (float): What the change of the boxes grows to: the standard deviation of the
            logarithms of both sides, and of the centre in 0.7 of a side.
    """

    def __init__(self, fraction: float = 0.25, jitter: float = 0.15) -> None:
        if not 0 < fraction < 1:
            raise ValueError(f'fraction must be above 0 and below 1, got {fraction!r}')
        self.fraction = fraction
        self.jitter = jitter

    def before_train(self, runner: Runner) -> None:
        """Check the model.

        Raises:
            ValueError: If it has no single box head.
        """
        model = model_of(runner)
        head = getattr(getattr(model, 'roi_head', None), 'bbox_head', None)
        if not hasattr(head, 'loss_cls'):
            raise ValueError(
                'ClassesFirstHook needs a two-stage detector with one box head, such as '
                f'MaskRCNN; got {type(model).__name__}: leave the hook out of custom_hooks'
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Choose what the model learns in this iteration."""
        model = model_of(runner)
        done = runner.iter / (self.fraction * runner.max_iters)
        if done >= 1:
            vars(model).pop('loss', None)
            return

        def loss(inputs: Tensor, samples: list[Any]) -> dict[str, Tensor]:
            return _class_loss(model, inputs, samples, self.jitter * done)

        model.loss = loss


def _class_loss(model: Any, inputs: Tensor, samples: list[Any], jitter: float) -> dict[str, Tensor]:
    """The loss of the classes of the true boxes."""
    from mmdet.structures.bbox import bbox2roi, get_box_tensor

    maps = model.extract_feat(inputs)
    truth = [sample.gt_instances for sample in samples]
    boxes = [_jittered(get_box_tensor(instances.bboxes), jitter) for instances in truth]
    labels = torch.cat([instances.labels for instances in truth])
    scores = model.roi_head._bbox_forward(maps, bbox2roi(boxes))['cls_score']
    return dict(loss_cls=model.roi_head.bbox_head.loss_cls(scores, labels))


def _jittered(boxes: Tensor, jitter: float) -> Tensor:
    """Boxes (N, 4) as x, y, x, y, of other places and sizes."""
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2
    centres = centres + 0.7 * jitter * torch.randn_like(sides) * sides
    sides = sides * torch.exp(jitter * torch.randn_like(sides))
    return torch.cat([centres - sides / 2, centres + sides / 2], 1)
