_base_ = [
    '_base_/models/classifier.py',
    '_base_/datasets/imagenet_224.py',
    '_base_/schedules/adamw_cls_300e_ema.py',
    '_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(type='RMT', arch='tiny', drop_path_rate=0.1),
    neck=dict(_delete_=True, type='ProjectAndPool', in_channels=512),
    head=dict(in_channels=1024),
)
