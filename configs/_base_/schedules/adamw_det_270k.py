# RegionViT's 3x: 270k iterations of 16 images, steps and warm-up from its published code. To go
# with default_runtime_iterations.py.
_base_ = './adamw_det_1x.py'

train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=270000, val_interval=15000)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(
        type='MultiStepLR',
        begin=0,
        end=270000,
        by_epoch=False,
        milestones=[210000, 250000],
        gamma=0.1,
    ),
]
