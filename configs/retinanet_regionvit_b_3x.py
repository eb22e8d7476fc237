_base_ = './retinanet_regionvit_s_3x.py'

model = dict(
    backbone=_base_.regionvit.b,
    neck=dict(in_channels=_base_.regionvit_dims.b),
)
