# The paper's recipe (Sec. 4.2) and the heads of Swin.
_base_ = [
    '_base_/models/cascade_mask-rcnn_4conv1fc.py',
    '_base_/backbones/focal.py',
    '_base_/datasets/coco_instance_ms_800.py',
    '_base_/schedules/adamw_det_3x.py',
    '_base_/default_runtime.py',
]

model = dict(
    backbone=_base_.focal.t,
    neck=dict(in_channels=_base_.focal_dims.t),
)
optim_wrapper = _base_.focal_decay
