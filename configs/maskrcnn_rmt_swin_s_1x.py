# Table 6: Swin's layout with RMT's attention.
_base_ = './maskrcnn_rmt_s_1x.py'

model = dict(
    backbone=_base_.rmt.swin_s,
    neck=dict(in_channels=_base_.rmt_dims.swin_s),
)
