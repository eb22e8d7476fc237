# Table A1; the smallest one without repeated augmentation.
_base_ = [
    '_base_/models/classifier_regionvit.py',
    '_base_/datasets/imagenet_224.py',
    '_base_/schedules/adamw_cls_300e_4096.py',
    '_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(arch='tiny'),
    neck=dict(in_channels=512),
    head=dict(in_channels=512),
)
