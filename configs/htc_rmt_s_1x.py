# No paper reports it: RMT's 1x.
_base_ = [
    '_base_/models/htc.py',
    '_base_/backbones/rmt.py',
    '_base_/datasets/coco_semantic_800.py',
    '_base_/schedules/adamw_det_1x_warmup500.py',
    '_base_/default_runtime.py',
]

model = dict(
    backbone=_base_.rmt.s,
    neck=dict(in_channels=_base_.rmt_dims.s),
)
