_base_ = './upernet_rmt_s_160k.py'

model = dict(
    backbone=_base_.rmt.b,
    decode_head=dict(in_channels=_base_.rmt_dims.b),
    auxiliary_head=dict(in_channels=_base_.rmt_dims.b[2]),
)
