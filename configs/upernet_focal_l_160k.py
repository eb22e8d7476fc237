# At 640 x 640, from ImageNet-22K (Sec. 4.3).
_base_ = [
    '_base_/models/upernet.py',
    '_base_/backbones/focal.py',
    '_base_/datasets/ade20k_640.py',
    '_base_/schedules/adamw_seg_160k.py',
    '_base_/default_runtime_seg.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=_base_.focal.l,
    decode_head=dict(in_channels=_base_.focal_dims.l),
    auxiliary_head=dict(in_channels=_base_.focal_dims.l[2]),
)
optim_wrapper = _base_.focal_decay
