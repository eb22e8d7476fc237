_base_ = './maskrcnn_regionvit_s_1x.py'

model = dict(backbone=dict(arch='small_plus'))
