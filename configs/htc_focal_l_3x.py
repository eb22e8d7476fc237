# HTC++ (Sec. 4.2): stronger augmentation, soft-NMS, a larger weight decay. InstaBoost moves objects
# but not their pixels in the maps of semantic classes, and the totals in Table 5 are those without
# the semantic branch: perhaps the paper has none (model.roi_head.semantic_head=None).
_base_ = [
    '_base_/models/htc.py',
    '_base_/backbones/focal.py',
    '_base_/datasets/coco_semantic_ms_1400.py',
    '_base_/schedules/adamw_det_3x.py',
    '_base_/default_runtime.py',
]

model = dict(
    backbone=_base_.focal.l,
    neck=dict(in_channels=_base_.focal_dims.l),
    test_cfg=dict(rcnn=dict(nms=dict(type='soft_nms'))),
)
optim_wrapper = dict(optimizer=dict(weight_decay=0.1), **_base_.focal_decay)
# The scales of multi-scale testing are ours: those of training.
resizes = [
    dict(type='Resize', scale=(1600, side), keep_ratio=True) for side in range(400, 1401, 200)
]
tta_pipeline = [
    _base_.tta_pipeline[0],
    dict(type='TestTimeAug', transforms=[resizes, *_base_.views[1:]]),
]
tta_model = dict(tta_cfg=dict(nms=dict(type='soft_nms')))
