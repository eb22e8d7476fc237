_base_ = './maskrcnn_vil_s_3x.py'

model = dict(
    backbone=_base_.vil.b,
    neck=dict(in_channels=_base_.vil_dims.b),
)
