# RegionViT, Table A1: 4096 images a step, 32 GPUs with 128 each.
_base_ = './adamw_cls_300e.py'

optim_wrapper = dict(optimizer=dict(lr=0.004), clip_grad=None)
param_scheduler = [
    dict(type='LinearLR', start_factor=2.5e-4, by_epoch=True, end=50, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=50),
]
auto_scale_lr = dict(base_batch_size=4096)
