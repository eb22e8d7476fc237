_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '_base_/backbones/rmt.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '_base_/schedules/adamw_det_1x_warmup500.py',
    '_base_/default_runtime.py',
]

model = dict(
    backbone=_base_.rmt.s,
    neck=dict(in_channels=_base_.rmt_dims.s),
)
