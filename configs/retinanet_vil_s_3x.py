_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '_base_/backbones/vil.py',
    '_base_/datasets/coco_detection_ms_800.py',
    '_base_/schedules/adamw_det_3x_clip.py',
    '_base_/default_runtime.py',
]

model = dict(
    backbone=dict(_base_.vil.s, out_indices=(1, 2, 3)),
    neck=dict(in_channels=_base_.vil_dims.s[1:], start_level=0),
)
