_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '_base_/backbones/rmt.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '_base_/schedules/adamw_det_1x_warmup500.py',
    '_base_/default_runtime.py',
]

# The head does not look at the first stage: an output norm there would get no gradient, which
# distributed training refuses.
model = dict(
    backbone=dict(_base_.rmt.t, out_indices=(1, 2, 3)),
    neck=dict(in_channels=_base_.rmt_dims.t[1:], start_level=0),
)
# Here norms decay, too.
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4), paramwise_cfg=None)
