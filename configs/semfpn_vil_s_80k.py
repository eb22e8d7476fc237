# Nothing is published: PVT's recipe, as RMT takes it, and the drop path of ViL's detectors.
_base_ = [
    'mmseg::_base_/models/fpn_r50.py',
    '_base_/backbones/vil_s.py',
    '_base_/datasets/ade20k_512.py',
    '_base_/schedules/adamw_seg_80k.py',
    '_base_/default_runtime_seg.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    pretrained=None,
    backbone=_base_.vil_s,
    neck=dict(in_channels=_base_.vil_s_dims),
    decode_head=dict(num_classes=150),
)
