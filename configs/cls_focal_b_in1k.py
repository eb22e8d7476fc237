_base_ = './cls_focal_t_in1k.py'

model = dict(
    backbone=dict(arch='base', drop_path_rate=0.3),
    neck=dict(in_channels=1024),
    head=dict(in_channels=1024),
)
