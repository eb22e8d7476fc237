# Table 6: attention without decay. No such weights are published; the name is ours.
_base_ = './semfpn_rmt_t_80k.py'

model = dict(
    backbone=dict(
        decay=None,
        init_cfg=dict(checkpoint='checkpoints/RMT-T-plain-attention.pth'),
    )
)
