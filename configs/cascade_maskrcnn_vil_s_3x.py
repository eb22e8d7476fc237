# No paper reports it: ViL's 3x with the heads of Swin.
_base_ = [
    '_base_/models/cascade_mask-rcnn_4conv1fc.py',
    '_base_/backbones/vil.py',
    '_base_/datasets/coco_instance_ms_800.py',
    '_base_/schedules/adamw_det_3x_clip.py',
    '_base_/default_runtime.py',
]

model = dict(
    backbone=_base_.vil.s,
    neck=dict(in_channels=_base_.vil_dims.s),
)
