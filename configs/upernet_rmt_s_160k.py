_base_ = [
    'mmseg::_base_/models/upernet_swin.py',
    '_base_/backbones/rmt_s.py',
    '_base_/datasets/ade20k_512.py',
    '_base_/schedules/adamw_seg_160k.py',
    '_base_/default_runtime_seg.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=_base_.rmt_s,
    decode_head=dict(in_channels=_base_.rmt_s_dims, num_classes=150),
    auxiliary_head=dict(in_channels=_base_.rmt_s_dims[2], num_classes=150),
)
