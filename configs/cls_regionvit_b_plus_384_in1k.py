# As many regional tokens as at 224 x 224 (Appendix A.1). Starts from ImageNet-21K; the name of the
# weights is ours.
_base_ = [
    '_base_/models/classifier.py',
    '_base_/datasets/imagenet_384.py',
    '_base_/schedules/adamw_cls_30e_1024.py',
    '_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='RegionViT',
        arch='base_plus',
        outputs='regional',
        out_indices=(3,),
        out_norm=None,
        drop_path_rate=0.1,
        window_size=24,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/RegionViT-B-plus-in21k.pth'),
    ),
    neck=dict(in_channels=1024),
    head=dict(in_channels=1024),
)
train_dataloader = dict(batch_size=32)
