_base_ = './maskrcnn_regionvit_b_3x.py'

model = dict(backbone=dict(arch='base_plus'))
