_base_ = './retinanet_vil_s_3x.py'

model = dict(
    backbone=dict(_base_.vil.t, out_indices=(1, 2, 3), drop_path_rate=0.1),
    neck=dict(in_channels=_base_.vil_dims.t[1:]),
)
