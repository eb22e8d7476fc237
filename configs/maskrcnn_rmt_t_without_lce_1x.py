# Table 6: no local context enhancement. No such weights are published; the name is ours.
_base_ = './maskrcnn_rmt_t_1x.py'

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, base='tiny', lce=False),
        init_cfg=dict(checkpoint='checkpoints/RMT-T-without-lce.pth'),
    )
)
