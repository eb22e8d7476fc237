_base_ = './retinanet_regionvit_s_plus_1x.py'

model = dict(backbone=dict(peg=True))
