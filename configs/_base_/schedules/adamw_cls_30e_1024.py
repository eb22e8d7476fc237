# RegionViT from ImageNet-21K to ImageNet-1K at 384 x 384, Table A1 (the text has another learning
# rate, 0.002): 32 GPUs with 32 images each.
_base_ = './adamw_cls_300e_4096.py'

train_cfg = dict(max_epochs=30)
optim_wrapper = dict(optimizer=dict(lr=2e-4, weight_decay=1e-8))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True)]
auto_scale_lr = dict(base_batch_size=1024)
