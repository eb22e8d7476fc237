# No paper reports it: PVT's recipe, as RMT takes it.
_base_ = [
    '_base_/models/semantic-fpn.py',
    '_base_/backbones/focal.py',
    '_base_/datasets/ade20k_512.py',
    '_base_/schedules/adamw_seg_80k.py',
    '_base_/default_runtime_seg.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=_base_.focal.t,
    neck=dict(in_channels=_base_.focal_dims.t),
)
optim_wrapper = _base_.focal_decay
