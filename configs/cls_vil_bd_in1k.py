_base_ = './cls_vil_s_in1k.py'

model = dict(backbone=dict(arch='base_deep'))
