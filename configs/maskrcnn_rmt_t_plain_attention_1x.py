# Table 6: attention without decay. No such weights are published; the name is ours.
_base_ = './maskrcnn_rmt_t_1x.py'

model = dict(
    backbone=dict(
        decay=None,
        init_cfg=dict(checkpoint='checkpoints/RMT-T-plain-attention.pth'),
    )
)
