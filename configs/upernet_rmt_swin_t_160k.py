# Table 6: Swin's layout with RMT's attention.
_base_ = './upernet_rmt_s_160k.py'

model = dict(
    backbone=_base_.rmt.swin_t,
    decode_head=dict(in_channels=_base_.rmt_dims.swin_t),
    auxiliary_head=dict(in_channels=_base_.rmt_dims.swin_t[2]),
)
