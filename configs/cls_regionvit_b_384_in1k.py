# As many regional tokens as at 224 x 224 (Appendix A.1), from ImageNet-21K.
_base_ = [
    '_base_/models/classifier_regionvit.py',
    '_base_/datasets/imagenet_384.py',
    '_base_/schedules/adamw_cls_30e_1024.py',
    '_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(arch='base', window_size=12),
    neck=dict(in_channels=1024),
    head=dict(in_channels=1024),
)
load_from = 'work_dirs/cls_regionvit_b_in21k/epoch_120.pth'
train_dataloader = dict(batch_size=32)
