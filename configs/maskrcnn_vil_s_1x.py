_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '_base_/backbones/vil.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '_base_/schedules/adamw_det_1x_clip.py',
    '_base_/default_runtime.py',
]

model = dict(
    backbone=_base_.vil.s,
    neck=dict(in_channels=_base_.vil_dims.s),
)
