# A narrow classifier for --demo: digits are told apart without Mixup and label smoothing.
_base_ = './cls_regionvit_ti_in1k.py'

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            stem='3-conv',
            dims=[32, 64, 128, 256],
            heads=[1, 2, 4, 8],
            depths=[1, 1, 2, 1],
            window_size=4,
        ),
        drop_path_rate=0.0,
    ),
    neck=dict(in_channels=256),
    head=dict(in_channels=256, loss=dict(label_smooth_val=0.05)),
    train_cfg=None,
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
demo = dict(max_iters=300, batch_size=64, warmup=30, log_interval=50)
