_base_ = './maskrcnn_vil_s_3x.py'

model = dict(
    backbone=dict(_base_.vil.t, drop_path_rate=0.1),
    neck=dict(in_channels=_base_.vil_dims.t),
)
