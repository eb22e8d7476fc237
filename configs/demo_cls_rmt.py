# A narrow classifier for --demo: digits are told apart without Mixup and label smoothing.
_base_ = './cls_rmt_t_in1k.py'

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            dims=[32, 64, 128, 256],
            heads=[1, 2, 4, 8],
            depths=[1, 1, 2, 1],
            mlp_ratios=[3, 3, 3, 3],
            decay_range=[(2, 6), (2, 6), (2, 8), (2, 8)],
        ),
        drop_path_rate=0.0,
    ),
    neck=dict(in_channels=256),
    head=dict(loss=dict(label_smooth_val=0.05)),
    train_cfg=None,
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
demo = dict(max_iters=300, batch_size=64, warmup=30, log_interval=50)
