_base_ = './maskrcnn_rmt_s_3x.py'

model = dict(
    backbone=_base_.rmt.b,
    neck=dict(in_channels=_base_.rmt_dims.b),
)
