# Table 6: Swin's layout with RMT's attention.
_base_ = './cls_rmt_t_in1k.py'

model = dict(
    backbone=dict(arch='swin_tiny'),
    neck=dict(in_channels=768),
)
