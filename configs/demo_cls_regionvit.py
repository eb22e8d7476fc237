# A narrow classifier for --demo: digits are told apart without Mixup.
_base_ = ['./cls_regionvit_ti_in1k.py', '_base_/demo_classifier.py']

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, stem='3-conv', window_size=4, **_base_.narrow),
        drop_path_rate=0.0,
    ),
    neck=dict(in_channels=256),
    head=dict(in_channels=256, loss=dict(label_smooth_val=0.05)),
    train_cfg=None,
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
