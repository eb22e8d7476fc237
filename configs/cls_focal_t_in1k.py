_base_ = [
    '_base_/models/classifier.py',
    '_base_/datasets/imagenet_224_no_erasing.py',
    '_base_/schedules/adamw_cls_300e.py',
    '_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(type='FocalTransformer', arch='tiny', drop_path_rate=0.2),
    neck=dict(in_channels=768, eps=1e-5),
    head=dict(in_channels=768),
)
