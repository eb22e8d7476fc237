"""Boxes and masks of one image, seen at several scales and flipped."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmdet.models.layers import multiclass_nms
from mmdet.models.roi_heads import (
    BaseRoIHead,
    CascadeRoIHead,
    HybridTaskCascadeRoIHead,
    StandardRoIHead,
)
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi, bbox_flip, scale_boxes
from mmengine.structures import InstanceData
from torch import Tensor, nn

_PREDICTS_MASKS = {
    head.predict_mask for head in (StandardRoIHead, CascadeRoIHead, HybridTaskCascadeRoIHead)
}
_FLIPPED_AXES = dict(horizontal=[-1], vertical=[-2], diagonal=[-2, -1])


class _View(NamedTuple):
    """What the detector makes of one view of an image."""

    maps: Sequence[Tensor]  # of the neck, each (1, C, H, W)
    semantics: Tensor | None  # what HTC's semantic branch adds, (1, C, H, W)
    sample: DetDataSample
    boxes: Tensor  # (N, 4) or (N, 4 * classes), in pixels of the original image, not mirrored
    scores: Tensor  # (N, classes + 1)


@MODELS.register_module()
class InstanceTTAModel(DetTTAModel):
    """Multi-scale and flip testing of detectors, with masks where the detector has them.

    Boxes without masks are merged as by mmdetection's ``DetTTAModel``. Detectors with masks are
    two-stage ones whose masks come from mmdetection's ``StandardRoIHead`` (Mask R-CNN),
    ``CascadeRoIHead`` or ``HybridTaskCascadeRoIHead``: the boxes of all views go through one
    non-maximum suppression. Then every view is asked for the masks of those that are left; they are
    averaged as probabilities on the mask head's own grid, after what is mirrored was turned back,
    and pasted into the image once. With one view that is not mirrored, and the detector's own
    ``nms``, the result is the detector's.

    Args:
        module (dict | nn.Module): The detector.
        tta_cfg (ConfigDict): ``nms``, an operation of mmcv (``nms`` or ``soft_nms``) and its
            settings, and ``max_per_img``, how many merged boxes are kept.
        data_preprocessor (dict, optional): Instead of the detector's.

    Raises:
        TypeError: If the detector says that it predicts masks, but in another way.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.module.with_mask:
            roi_head = getattr(self.module, 'roi_head', None)
            if getattr(type(roi_head), 'predict_mask', None) not in _PREDICTS_MASKS:
                raise TypeError(
                    'multi-scale and flip testing (--tta) takes masks from Mask R-CNN, Cascade '
                    f'Mask R-CNN and HTC, got {type(self.module).__name__} with '
                    f'{type(roi_head).__name__}'
                )

    @torch.no_grad()
    def test_step(self, data: dict[str, Any]) -> list[DetDataSample]:
        """Predict from all views of a batch.

        Args:
            data (dict): 'inputs' and 'data_samples', each a list of views, a view being a list of
                images, as mmengine's ``pseudo_collate`` makes it of ``TestTimeAug``'s results.

        Returns:
            list[DetDataSample]: For each image its first view's sample with the merged
            ``pred_instances``: boxes (N, 4) and masks (N, H, W) in pixels of the original image.
        """
        if not self.module.with_mask:
            return super().test_step(data)
        images = zip(zip(*data['inputs']), zip(*data['data_samples']))
        return [self._predict(inputs, samples) for inputs, samples in images]

    def _predict(self, inputs: Sequence[Tensor], samples: Sequence[DetDataSample]) -> DetDataSample:
        """Merge what is found in the views of one image."""
        views = [self._look(image, sample) for image, sample in zip(inputs, samples)]
        merged = self._merge(views)
        instances = merged.pred_instances
        masks: list[Tensor | None] = [None]
        if len(instances):
            # One view at a time: a hundred boxes of eighty classes take 25 MB.
            each = (self._mask_probabilities(view, instances.bboxes) for view in views)
            masks = [functools.reduce(operator.add, each) / len(views)]
        roi_head = self.module.roi_head
        heads = roi_head.mask_head
        head: Any = heads[-1] if isinstance(heads, nn.ModuleList) else heads
        head.predict_by_feat(
            masks,
            [instances],
            # Boxes are at the original image's scale already.
            [dict(ori_shape=merged.ori_shape, scale_factor=(1.0, 1.0))],
            roi_head.test_cfg,
            rescale=True,
            activate_map=True,
        )
        return merged

    def _merge(self, views: Sequence[_View]) -> DetDataSample:
        """Suppress all views' boxes at once: twice would lower soft-NMS's scores twice."""
        classes = views[0].scores.shape[1] - 1
        boxes = [view.boxes.unflatten(1, (-1, 4)).expand(-1, classes, 4) for view in views]
        found, labels = multiclass_nms(
            torch.cat(boxes).flatten(1),
            torch.cat([view.scores for view in views]),
            self.module.roi_head.test_cfg.score_thr,
            self.tta_cfg.nms,
            self.tta_cfg.max_per_img,
        )
        merged = views[0].sample
        merged.pred_instances = InstanceData(bboxes=found[:, :4], scores=found[:, 4], labels=labels)
        return merged

    def _look(self, image: Tensor, sample: DetDataSample) -> _View:
        """Find the boxes of one view."""
        detector, roi_head = self.module, self.module.roi_head
        data = detector.data_preprocessor(dict(inputs=[image], data_samples=[sample]))
        (sample,) = data['data_samples']
        maps = detector.extract_feat(data['inputs'])
        proposals = detector.rpn_head.predict(maps, [sample], rescale=False)
        semantics, extra = None, {}
        if getattr(roi_head, 'with_semantic', False):
            semantics = roi_head.semantic_head(maps)[1]
            extra = dict(semantic_feat=semantics)
        # Without settings for it nothing is suppressed.
        (found,) = roi_head.predict_bbox(
            maps, [sample.metainfo], proposals, rcnn_test_cfg=None, rescale=True, **extra
        )
        boxes = found.bboxes
        if sample.flip:
            boxes = bbox_flip(boxes, sample.ori_shape, sample.flip_direction)
        return _View(maps, semantics, sample, boxes, found.scores)

    def _mask_probabilities(self, view: _View, boxes: Tensor) -> Tensor:
        """Masks of boxes of the original image (N, 4) in one view: (N, classes, h, w)."""
        meta = view.sample.metainfo
        axes = []
        if meta['flip']:
            axes = _FLIPPED_AXES[meta['flip_direction']]
            boxes = bbox_flip(boxes, meta['ori_shape'], meta['flip_direction'])
        rois = bbox2roi([scale_boxes(boxes, meta['scale_factor'])])
        logits = _mask_logits(self.module.roi_head, view, rois)
        return torch.stack([stage.sigmoid() for stage in logits]).mean(0).flip(axes)


def _mask_logits(roi_head: BaseRoIHead, view: _View, rois: Tensor) -> list[Tensor]:
    """What the stages that a head averages over say of regions: (N, classes, h, w) each."""
    if isinstance(roi_head, HybridTaskCascadeRoIHead):
        results = roi_head._mask_forward(-1, view.maps, rois, view.semantics, training=False)
        return results['mask_preds']
    if isinstance(roi_head, CascadeRoIHead):
        stages = range(roi_head.num_stages)
        return [roi_head._mask_forward(i, view.maps, rois)['mask_preds'] for i in stages]
    return [roi_head._mask_forward(view.maps, rois)['mask_preds']]
