# RegionViT on ImageNet-21K, Table A1.
_base_ = './adamw_cls_300e_4096.py'

train_cfg = dict(max_epochs=120)
optim_wrapper = dict(optimizer=dict(lr=0.001, weight_decay=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=5),
]
