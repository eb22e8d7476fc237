_base_ = './cls_regionvit_ti_in1k.py'

model = dict(backbone=dict(arch='tiny_plus'))
