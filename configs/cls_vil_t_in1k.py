_base_ = [
    '_base_/models/classifier.py',
    '_base_/datasets/imagenet_224.py',
    '_base_/schedules/adamw_cls_300e_random_shift.py',
    '_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='VisionLongformer',
        arch='tiny',
        position='ape',
        shift_mode=1,
        drop_path_rate=0.1,
    ),
    neck=dict(in_channels=384),
    head=dict(in_channels=384),
)
