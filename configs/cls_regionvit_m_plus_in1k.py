_base_ = './cls_regionvit_m_in1k.py'

model = dict(backbone=dict(arch='medium_plus'))
