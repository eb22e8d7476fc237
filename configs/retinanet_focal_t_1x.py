_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '_base_/backbones/focal.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '_base_/schedules/adamw_det_1x.py',
    '_base_/default_runtime.py',
]

# The head does not look at the first stage: an output norm there would get no gradient, which
# distributed training refuses.
model = dict(
    backbone=dict(_base_.focal.t, out_indices=(1, 2, 3)),
    neck=dict(in_channels=_base_.focal_dims.t[1:], start_level=0),
)
optim_wrapper = _base_.focal_decay
