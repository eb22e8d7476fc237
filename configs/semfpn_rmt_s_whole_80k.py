# Table 7: whole attention in the third stage. No such weights are published; the name is ours.
_base_ = './semfpn_rmt_s_80k.py'

model = dict(
    backbone=dict(
        attention=('decomposed', 'decomposed', 'whole', 'whole'),
        init_cfg=dict(checkpoint='checkpoints/RMT-S-whole.pth'),
    )
)
