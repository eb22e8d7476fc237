_base_ = './cls_regionvit_s_in1k.py'

model = dict(
    backbone=dict(arch='base'),
    neck=dict(in_channels=1024),
    head=dict(in_channels=1024),
)
