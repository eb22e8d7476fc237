_base_ = './maskrcnn_regionvit_b_plus_1x.py'

model = dict(backbone=dict(peg=True))
