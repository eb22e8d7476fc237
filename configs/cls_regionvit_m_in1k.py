_base_ = './cls_regionvit_s_in1k.py'

model = dict(backbone=dict(arch='medium'))
