# No paper reports it: ViL's 1x.
_base_ = [
    '_base_/models/htc.py',
    '_base_/backbones/vil.py',
    '_base_/datasets/coco_semantic_800.py',
    '_base_/schedules/adamw_det_1x_clip.py',
    '_base_/default_runtime.py',
]

model = dict(
    backbone=_base_.vil.s,
    neck=dict(in_channels=_base_.vil_dims.s),
)
