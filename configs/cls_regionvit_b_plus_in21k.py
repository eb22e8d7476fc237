_base_ = './cls_regionvit_b_in21k.py'

model = dict(backbone=dict(arch='base_plus'))
