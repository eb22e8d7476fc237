_base_ = './retinanet_regionvit_s_3x.py'

model = dict(backbone=dict(arch='small_plus'))
