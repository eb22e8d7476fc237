_base_ = './cls_focal_t_in1k.py'

model = dict(backbone=dict(arch='small'))
