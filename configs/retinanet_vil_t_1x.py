_base_ = './retinanet_vil_s_1x.py'

model = dict(
    backbone=dict(_base_.vil.t, out_indices=(1, 2, 3)),
    neck=dict(in_channels=_base_.vil_dims.t[1:]),
)
