# No paper reports it: PVT's recipe, as RMT takes it, and the drop path of ViL's detectors.
_base_ = [
    '_base_/models/semantic-fpn.py',
    '_base_/backbones/vil.py',
    '_base_/datasets/ade20k_512.py',
    '_base_/schedules/adamw_seg_80k.py',
    '_base_/default_runtime_seg.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=_base_.vil.s,
    neck=dict(in_channels=_base_.vil_dims.s),
)
