_base_ = './retinanet_focal_t_1x.py'

model = dict(
    backbone=dict(_base_.focal.b, out_indices=(1, 2, 3)),
    neck=dict(in_channels=_base_.focal_dims.b[1:]),
)
