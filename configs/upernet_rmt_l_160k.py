_base_ = './upernet_rmt_s_160k.py'

model = dict(
    backbone=_base_.rmt.l,
    decode_head=dict(in_channels=_base_.rmt_dims.l),
    auxiliary_head=dict(in_channels=_base_.rmt_dims.l[2]),
)
