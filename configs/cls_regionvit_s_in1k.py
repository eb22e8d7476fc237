_base_ = [
    '_base_/models/classifier.py',
    '_base_/datasets/imagenet_224_repeated.py',
    '_base_/schedules/adamw_cls_300e_4096.py',
    '_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='RegionViT',
        arch='small',
        outputs='regional',
        out_indices=(3,),
        out_norm=None,
        drop_path_rate=0.1,
    ),
    neck=dict(in_channels=768),
    head=dict(in_channels=768),
)
