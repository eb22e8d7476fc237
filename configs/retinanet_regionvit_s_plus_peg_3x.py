_base_ = './retinanet_regionvit_s_plus_3x.py'

model = dict(backbone=dict(peg=True))
