_base_ = './retinanet_regionvit_b_plus_3x.py'

model = dict(backbone=dict(peg=True))
