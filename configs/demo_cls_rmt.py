# A narrow classifier for --demo: digits are told apart without Mixup.
_base_ = ['./cls_rmt_t_in1k.py', '_base_/demo_classifier.py']

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, **_base_.narrow_rmt),
        drop_path_rate=0.0,
    ),
    neck=dict(in_channels=256),
    head=dict(loss=dict(label_smooth_val=0.05)),
    train_cfg=None,
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
