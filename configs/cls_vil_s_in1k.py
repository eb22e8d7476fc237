_base_ = './cls_vil_t_in1k.py'

model = dict(
    backbone=dict(arch='small'),
    neck=dict(in_channels=768),
    head=dict(in_channels=768),
)
