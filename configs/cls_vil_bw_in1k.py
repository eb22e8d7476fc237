_base_ = './cls_vil_s_in1k.py'

model = dict(
    backbone=dict(arch='base_wide'),
    neck=dict(in_channels=1024),
    head=dict(in_channels=1024),
)
