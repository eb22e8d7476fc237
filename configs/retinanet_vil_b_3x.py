_base_ = './retinanet_vil_s_3x.py'

model = dict(
    backbone=dict(_base_.vil.b, out_indices=(1, 2, 3)),
    neck=dict(in_channels=_base_.vil_dims.b[1:]),
)
