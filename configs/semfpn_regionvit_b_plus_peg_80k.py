_base_ = './semfpn_regionvit_s_80k.py'

model = dict(
    backbone=dict(_base_.regionvit.b, arch='base_plus', peg=True),
    neck=dict(in_channels=_base_.regionvit_dims.b),
)
