_base_ = './semfpn_regionvit_s_80k.py'

model = dict(backbone=dict(arch='small_plus'))
