_base_ = './maskrcnn_regionvit_b_1x.py'

model = dict(backbone=dict(arch='base_plus'))
