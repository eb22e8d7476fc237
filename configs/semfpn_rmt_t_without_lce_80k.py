# Table 6: no local context enhancement. No such weights are published; the name is ours.
_base_ = './semfpn_rmt_t_80k.py'

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, base='tiny', lce=False),
        init_cfg=dict(checkpoint='checkpoints/RMT-T-without-lce.pth'),
    )
)
