# Table 6: Swin's layout with RMT's attention.
_base_ = './upernet_rmt_s_160k.py'

model = dict(
    backbone=_base_.rmt.swin_s,
    decode_head=dict(in_channels=_base_.rmt_dims.swin_s),
    auxiliary_head=dict(in_channels=_base_.rmt_dims.swin_s[2]),
)
