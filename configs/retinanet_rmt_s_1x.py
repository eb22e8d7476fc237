_base_ = './retinanet_rmt_t_1x.py'

model = dict(
    backbone=dict(_base_.rmt.s, out_indices=(1, 2, 3)),
    neck=dict(in_channels=_base_.rmt_dims.s[1:]),
)
