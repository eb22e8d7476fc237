# A classifier of ImageNet-1K, trained with Mixup, CutMix and label smoothing as DeiT. What makes a
# vector of the last map stands in the configs.
model = dict(
    type='ImageClassifier',
    backbone=dict(out_indices=(3,), out_norm=None),
    neck=dict(type='NormAndPool'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        cal_acc=False,
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
