_base_ = './maskrcnn_rmt_s_1x.py'

model = dict(
    backbone=_base_.rmt.l,
    neck=dict(in_channels=_base_.rmt_dims.l),
)
