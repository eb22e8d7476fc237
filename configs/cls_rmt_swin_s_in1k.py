# Table 6: Swin's layout with RMT's attention.
_base_ = './cls_rmt_t_in1k.py'

model = dict(
    backbone=dict(arch='swin_small', drop_path_rate=0.15),
    neck=dict(in_channels=768),
)
