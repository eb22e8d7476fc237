_base_ = [
    '_base_/models/cascade_mask-rcnn_4conv1fc.py',
    '_base_/backbones/rmt.py',
    '_base_/datasets/coco_instance_ms_crop_800.py',
    '_base_/schedules/adamw_det_3x_warmup500.py',
    '_base_/default_runtime.py',
]

model = dict(
    backbone=_base_.rmt.s,
    neck=dict(in_channels=_base_.rmt_dims.s),
)
