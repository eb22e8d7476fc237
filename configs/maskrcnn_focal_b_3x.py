_base_ = './maskrcnn_focal_t_3x.py'

model = dict(
    backbone=_base_.focal.b,
    neck=dict(in_channels=_base_.focal_dims.b),
)
