_base_ = './cls_regionvit_b_in1k.py'

model = dict(backbone=dict(arch='base_plus'))
