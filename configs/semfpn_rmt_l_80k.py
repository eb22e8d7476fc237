_base_ = './semfpn_rmt_t_80k.py'

model = dict(
    backbone=_base_.rmt.l,
    neck=dict(in_channels=_base_.rmt_dims.l),
)
