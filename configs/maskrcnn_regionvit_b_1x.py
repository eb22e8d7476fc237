_base_ = './maskrcnn_regionvit_s_1x.py'

model = dict(
    backbone=_base_.regionvit.b,
    neck=dict(in_channels=_base_.regionvit_dims.b),
)
