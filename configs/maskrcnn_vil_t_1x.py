_base_ = './maskrcnn_vil_s_1x.py'

model = dict(
    backbone=_base_.vil.t,
    neck=dict(in_channels=_base_.vil_dims.t),
)
