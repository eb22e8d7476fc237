_base_ = './semfpn_regionvit_s_plus_80k.py'

model = dict(backbone=dict(peg=True))
