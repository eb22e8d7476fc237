# Table A1.
_base_ = [
    '_base_/models/classifier_regionvit.py',
    '_base_/datasets/imagenet21k_224.py',
    '_base_/schedules/adamw_cls_120e_4096.py',
    '_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(arch='base'),
    neck=dict(in_channels=1024),
    head=dict(num_classes=21841, in_channels=1024),
)
val_cfg = None
